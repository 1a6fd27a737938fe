"""What is explained where it is more, or other, than a class of a classifier: scores of your own, and ready-made ones.

A score is a function from what a network returns for n images to n numbers, `[n]`. Every explainer takes one,
`explain(images, score=f)`, and a second one as its contrast, `contrast=g`: then `f - g` is explained. Ready-made are
the mean logit of a region (segmentation), the best box (detection), the likeness of embeddings, a logit, and sums.

A method asks about one image, about copies and about changed images too. So a score that has something for each image
of the call (a mask, a box) is a `Score`, which gives its part for some of them (`of`); a function has not.

Legend: N images of a call, n of a batch, K classes, H W image, D embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.models.outputs import described
from contrex.ops import scores
from contrex.settings.combination import View

__all__ = ["ClassScore", "Detection", "Logit", "Region", "Score", "Several", "Similarity"]


class Score(ABC):
    """One number for each image, made of what a network returns."""

    @property
    def name(self) -> str:
        """What records and pictures call it."""
        return type(self).__name__

    @property
    def kind(self) -> Hashable:
        """What of it decides which way the number takes through a network: scores of one kind explain one layer. Here
        the score itself, which may read one of several heads."""
        try:
            hash(self)
        except TypeError:
            return _Same(self)
        return self

    @abstractmethod
    def __call__(self, output: Any) -> Tensor:
        """The numbers `[n]` in what a network returned for n images."""

    def fitted(self, images: Tensor) -> Self:
        """The same for the images `[N,C,H,W]` of a call, or `ArgumentError` where it does not fit them."""
        return self

    def of(self, places: Sequence[int]) -> Self:
        """The same for a batch that is made of these images of the call."""
        return self

    def seen(self, view: View, sides: Sequence[int]) -> Self:
        """The same for copies of images with these sides [H,W], as `view` changes them (`augment`): what has a place in
        the image moves with it."""
        return self

    def check(self, values: Tensor) -> None:  # noqa: B027 - most scores refuse none
        """Refuse numbers `[N]` of the images themselves that mean that there is nothing to explain."""


class ClassScore(Score):
    """Logits of classes in what a network returns: targets, contrasts, names and probabilities are as ever.

    Its class `target` is one or one per image, also by name; None is the call's, or the most probable one.
    """

    target: int | str | Sequence[int] | Sequence[str] | Tensor | None

    @abstractmethod
    def logits(self, output: Any) -> Tensor:
        """The logits `[n,K]` in what a network returned for n images."""

    def __call__(self, output: Any) -> Tensor:
        logits = self.logits(output)
        target = self.target
        if target is None or isinstance(target, str) or (isinstance(target, Sequence) and isinstance(target[0], str)):
            raise ArgumentError(f"`{self.name}` needs the number of its class where it is one of several scores.")
        chosen = scores.class_indices(target, logits, "multilabel", name=f"{type(self).__name__} target")  # type: ignore[arg-type]
        return logits.gather(1, chosen[:, None])[:, 0]

    def fitted(self, images: Tensor) -> Self:
        many = isinstance(self.target, (list, tuple)) or (isinstance(self.target, Tensor) and self.target.ndim == 1)
        if many:
            _check_rows(self.target, len(images), f"`{type(self).__name__}` target")
        return self

    def of(self, places: Sequence[int]) -> Self:
        return replace(self, target=_rows(self.target, places))  # type: ignore[type-var]


class _OneWay(Score):
    """A score whose class alone decides which way it takes through a network, whatever it asks about there."""

    @property
    def kind(self) -> Hashable:
        return type(self)


@dataclass(frozen=True, eq=False)
class Logit(_OneWay, ClassScore):
    """The logit of a class, as explained without a score: a part of `Several`."""

    target: int | str | Sequence[int] | Sequence[str] | Tensor | None = None

    @property
    def name(self) -> str:
        return f"Logit({_in_words(self.target)})"

    def logits(self, output: Any) -> Tensor:
        return tensor_in(output, ("logits",), "logits [N,K]", 2)


@dataclass(frozen=True, eq=False)
class Region(_OneWay, ClassScore):
    """The mean over a region of the logits of each pixel, for networks of semantic segmentation: why is this region
    `target` - and not another class of the same pixels?

    `S_k = sum_p m_p y_kp / sum_p m_p`, with m the mask. The network returns `[N,K,H,W]`: a tensor, or an entry "out"
    (torchvision) or "logits", or an attribute of these names (transformers). Where it is smaller than the images, m is
    its mean over each place. Any rank: `[N,K,L]` and `[N,K,D,H,W]` too.

    Deviation: pytorch-grad-cam's `SemanticSegmentationTarget` is the sum, `sum(m)` times as much; then weights of a
    contrast would depend on the size of the region.

    Args:
        where: a mask [H,W] or one per image [N,H,W] in the size of the images, boolean or weights from 0 on; or a box
            (xmin, ymin, xmax, ymax) in pixels of the images, or [N,4].
        target: the class, one or one per image.
    """

    where: Tensor | Sequence[float] | Sequence[Sequence[float]]
    target: int | str | Sequence[int] | Sequence[str] | Tensor | None = None

    @property
    def name(self) -> str:
        what = "mask" if _is_mask(self.where) else "box"
        return f"Region({what}{'' if self.target is None else f', {_in_words(self.target)}'})"

    def fitted(self, images: Tensor) -> Self:
        super().fitted(images)
        mask = _mask_of(self.where, images.shape[2:]).to(images.device)
        if mask.ndim == images.ndim - 1:
            _check_rows(mask, len(images), "`Region` where")
        else:
            mask = mask[None]
        if bool((mask < 0).any()) or not bool(mask.isfinite().all()):
            raise ArgumentError("`Region` where must be weights from 0 on, finite; it has others.")
        empty = (mask.flatten(1).sum(1) == 0).nonzero()
        if len(empty):
            raise ArgumentError(f"`Region` where is empty for image {int(empty[0])}: name pixels of the image.")
        return replace(self, where=mask.expand(len(images), *mask.shape[1:]))

    def of(self, places: Sequence[int]) -> Self:
        assert isinstance(self.where, Tensor)
        return replace(super().of(places), where=self.where[list(places)])

    def seen(self, view: View, sides: Sequence[int]) -> Self:
        assert isinstance(self.where, Tensor)
        return replace(self, where=self.where.flip(-1)) if view.flip else self  # its size is that of the output, later

    def logits(self, output: Any) -> Tensor:
        maps = tensor_in(output, ("out", "logits"), "logits of each place [N,K,H,W]", None)
        masks = self.where
        if not isinstance(masks, Tensor) or masks.ndim != maps.ndim - 1:  # called by itself, with an output alone
            masks = self.fitted(maps).where
            assert isinstance(masks, Tensor)
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # half counts no more than 65504 pixels
        masks = F.interpolate(masks[:, None].to(maps), maps.shape[2:], mode="area").flatten(2)
        # Product and sum one by one: relevance propagation has rules for these, and for no matrix product.
        return (maps.flatten(2) * (masks / masks.sum(2, keepdim=True))).sum(2)


@dataclass(frozen=True, eq=False)
class Detection(_OneWay):
    """How well the best detection fits a box: `max_i IoU(box, b_i) s_i` over the detections b of a label, with score s.

    Source: D-RISE (Petsiuk et al., CVPR 2021, section 3.2), whose similarity multiplies overlap and probability. It is
    0 where nothing is detected there, as of changed images; for the images of the call that is an error.

    The network returns a dictionary for each image, "boxes" [M,4], "labels" [M] and "scores" [M], as torchvision's in
    eval mode. Gradients go through s alone. That of the overlap is left out: it jumps where two boxes coincide, as the
    box and the detection that it was taken from do. Which boxes non-maximum suppression leaves over has none.

    Deviations: D-RISE has the whole vector of class probabilities, and objectness. pytorch-grad-cam's
    `FasterRCNNBoxScoreTarget` adds the two, `IoU + s`, for the box that overlaps most.

    Args:
        box: (xmin, ymin, xmax, ymax) in pixels, or one per image [N,4].
        label: the class of the detections, one or one per image; None is any.
    """

    box: Tensor | Sequence[float] | Sequence[Sequence[float]]
    label: int | Sequence[int] | Tensor | None = None

    @property
    def name(self) -> str:
        return "Detection" if self.label is None else f"Detection({_in_words(self.label)})"

    def fitted(self, images: Tensor) -> Self:
        boxes = torch.as_tensor(self.box, dtype=torch.float32, device=images.device)
        if boxes.shape not in ((4,), (len(images), 4)):
            raise ArgumentError(
                f"`Detection` box must be (xmin, ymin, xmax, ymax), or one per image, [{len(images)},4]; got "
                f"{list(boxes.shape)}."
            )
        if bool((boxes[..., 2:] <= boxes[..., :2]).any()):
            raise ArgumentError(f"`Detection` box must have xmin < xmax and ymin < ymax, got {boxes.tolist()}.")
        label = None if self.label is None else torch.as_tensor(self.label, device=images.device)
        if label is not None and label.shape not in ((), (len(images),)):
            raise ArgumentError(f"`Detection` label must be one, or one per image; got {list(label.shape)}.")
        return replace(
            self, box=boxes.expand(len(images), 4), label=None if label is None else label.expand(len(images))
        )

    def of(self, places: Sequence[int]) -> Self:
        return replace(self, box=_rows(self.box, places), label=_rows(self.label, places))

    def seen(self, view: View, sides: Sequence[int]) -> Self:
        box = torch.as_tensor(self.box)
        height, width = view.sides(sides)
        box = box * box.new_tensor([width / sides[1], height / sides[0]] * 2)
        if view.flip:
            left, top, right, bottom = box.unbind(-1)
            box = torch.stack([width - right, top, width - left, bottom], -1)
        return replace(self, box=box)

    def __call__(self, output: Any) -> Tensor:
        if not isinstance(output, (list, tuple)) or not all(isinstance(one, Mapping) for one in output):
            raise ArgumentError(
                f"`Detection` needs a dictionary of boxes, labels and scores for each image, got {described(output)}: "
                "put the network into eval mode, or pass the explainer `output=`, a function that makes them."
            )
        boxes = torch.as_tensor(self.box).expand(len(output), 4)
        labels = [None] * len(output) if self.label is None else torch.as_tensor(self.label).expand(len(output))
        return torch.stack([_fit(*each) for each in zip(output, boxes, labels, strict=True)])

    def check(self, values: Tensor) -> None:
        nothing = (values == 0).nonzero()
        if len(nothing):
            raise ArgumentError(
                f"`Detection`: nothing that the network detects{'' if self.label is None else ' of this label'} "
                f"overlaps the box of image {int(nothing[0])}. Take one that it gives, `model(images)[0]['boxes']`, in "
                "pixels of the image."
            )


@dataclass(frozen=True, eq=False)
class Similarity(_OneWay):
    """The cosine of an embedding and a reference, `e r / (|e| |r|)`: what makes an image like another one, or a text?

    The network returns embeddings `[N,D]`: a tensor, or an entry or attribute "image_embeds" or "pooler_output"
    (transformers); others are found by the explainer's `output=`. `reference` is one vector [D], or one per image
    [N,D], such as what the network returns for another image. A second one is its contrast: why like this one rather
    than that one.
    """

    reference: Tensor

    @property
    def name(self) -> str:
        return "Similarity"

    def fitted(self, images: Tensor) -> Self:
        reference = self.reference.detach()
        if reference.ndim == 1:
            reference = reference.expand(len(images), -1)
        if reference.ndim != 2 or len(reference) != len(images) or not bool((reference != 0).any(1).all()):
            raise ArgumentError(
                f"`Similarity` reference must be an embedding [D], or one per image, [{len(images)},D], and not zero; "
                f"got {list(self.reference.shape)}."
            )
        return replace(self, reference=reference)

    def of(self, places: Sequence[int]) -> Self:
        return replace(self, reference=self.reference[list(places)])

    def __call__(self, output: Any) -> Tensor:
        found = tensor_in(output, ("image_embeds", "pooler_output"), "embeddings [N,D]", 2)
        if found.shape[1] != self.reference.shape[-1]:
            raise ArgumentError(
                f"`Similarity` reference has {self.reference.shape[-1]} numbers, the network's embeddings have "
                f"{found.shape[1]}: take one that it made."
            )
        precise = torch.promote_types(found.dtype, torch.float32)
        one, other = (F.normalize(each.to(found.device, precise), dim=-1) for each in (found, self.reference))
        return (one * other).sum(-1)


@dataclass(frozen=True, eq=False)
class Several(Score):
    """A weighted sum of scores in one map: `sum_i w_i S_i`, of functions and ready-made ones; weights are 1 where none
    are given."""

    scores: Sequence[Score | Callable[[Any], Tensor]]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.scores or not all(map(callable, self.scores)):
            raise ArgumentError(f"`Several` scores must be functions or scores, at least one; got {self.scores!r}.")
        if self.weights is not None and len(self.weights) != len(self.scores):
            raise ArgumentError(
                f"`Several` weights must be one for each of the {len(self.scores)} scores, got {len(self.weights)}."
            )
        object.__setattr__(self, "scores", tuple(map(as_score, self.scores)))

    @property
    def parts(self) -> Sequence[Score]:
        """The scores that are added up."""
        return [as_score(one) for one in self.scores]

    @property
    def name(self) -> str:
        weights = self.weights or [1.0] * len(self.scores)
        told = [part.name if w == 1 else f"{w:g} {part.name}" for w, part in zip(weights, self.parts, strict=True)]
        return " + ".join(told)

    @property
    def kind(self) -> Hashable:
        return tuple(part.kind for part in self.parts)

    def fitted(self, images: Tensor) -> Self:
        return replace(self, scores=[part.fitted(images) for part in self.parts])

    def of(self, places: Sequence[int]) -> Self:
        return replace(self, scores=[part.of(places) for part in self.parts])

    def seen(self, view: View, sides: Sequence[int]) -> Self:
        return replace(self, scores=[part.seen(view, sides) for part in self.parts])

    def __call__(self, output: Any) -> Tensor:
        weights = self.weights or [1.0] * len(self.scores)
        found = torch.stack([w * part(output) for w, part in zip(weights, self.parts, strict=True)])
        return found.sum(0)


@dataclass(frozen=True, eq=False)
class Own(Score):
    """A user's function as a score."""

    function: Callable[[Any], Tensor]

    @property
    def name(self) -> str:
        inner = getattr(self.function, "func", self.function)  # of functools.partial
        name: str = getattr(inner, "__name__", type(inner).__name__)
        return "a function" if name == "<lambda>" else name

    @property
    def kind(self) -> Hashable:
        return _Same(self.function)

    def __call__(self, output: Any) -> Tensor:
        return self.function(output)


class _Same:
    """A function as a key: equal to itself alone, whatever it says of equality."""

    def __init__(self, one: object) -> None:
        self.one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.one is self.one

    def __hash__(self) -> int:
        return id(self.one)


def as_score(one: Score | Callable[[Any], Tensor]) -> Score:
    """A score as it is, a function as one."""
    return one if isinstance(one, Score) else Own(one)


def tensor_in(output: object, names: Sequence[str], what: str, ndim: int | None) -> Tensor:
    """The tensor in an output of a network: itself, or an entry or attribute of one of these names.

    Raises:
        ArgumentError: there is none, or it has not `ndim` axes (None: three at least).
    """
    given = output
    if not isinstance(output, Tensor):
        found = [output.get(name) if isinstance(output, Mapping) else getattr(output, name, None) for name in names]
        given = next((one for one in found if isinstance(one, Tensor)), None)
    if isinstance(given, Tensor) and (given.ndim == ndim or (ndim is None and given.ndim > 2)):
        return given
    raise ArgumentError(
        f"`score` needs {what}, the network returned {described(output)}: pass the explainer `output=`, a function "
        "that finds them."
    )


def _fit(found: Mapping[str, Tensor], box: Tensor, label: Tensor | None) -> Tensor:
    """The largest product of overlap with `box` and score among the detections of one image."""
    # In half a box of 256 x 256 pixels has an infinite area.
    boxes, sure = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in (found["boxes"], found["scores"]))
    fits = _overlap(boxes.detach(), box.to(boxes)) * sure
    if label is not None:
        fits = fits.where(found["labels"] == label.to(boxes.device), 0)
    # Of no detections the sum, 0, keeps a graph, which a gradient is asked of beside that of other images.
    return fits.amax() if len(fits) else sure.sum() + boxes.sum()


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union `[M]` of boxes [M,4] with one."""
    sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0)
    common = sides.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / (areas - common)


def _is_mask(where: object) -> bool:
    return isinstance(where, Tensor) and where.shape[-1:] != (4,)


def _mask_of(where: object, sides: Sequence[int]) -> Tensor:
    """A mask `[*sides]` or `[N,*sides]` of weights, from one or from boxes."""
    given = torch.as_tensor(where)
    if given.shape[-len(sides) :] == torch.Size(sides) and given.ndim in (len(sides), len(sides) + 1):
        return given.to(torch.promote_types(given.dtype, torch.float32))
    if len(sides) == 2 and given.shape[-1:] == (4,) and given.ndim in (1, 2):
        columns, rows = (_covered(given[..., i], given[..., i + 2], side) for i, side in ((0, sides[1]), (1, sides[0])))
        return rows[..., :, None] * columns[..., None, :]
    axes = ",".join(str(side) for side in sides)
    box = ", or a box (xmin, ymin, xmax, ymax)" if len(sides) == 2 else ""
    raise ArgumentError(
        f"`Region` where must be a mask [{axes}] in the size of the images, or one per image [N,{axes}]{box}; got "
        f"{list(given.shape)}."
    )


def _covered(low: Tensor, high: Tensor, side: int) -> Tensor:
    """How much of each of `side` pixels lies between two positions, `[...,side]`."""
    start = torch.arange(side, device=low.device, dtype=torch.float32)
    return (torch.minimum(high[..., None], start + 1) - torch.maximum(low[..., None], start)).clamp(min=0)


def _check_rows(value: Any, num: int, what: str) -> None:
    if len(value) != num:
        raise ArgumentError(f"{what} must be one, or one per image, {num}; got {len(value)}.")


def _rows(value: Any, places: Sequence[int]) -> Any:
    """The parts of what is one for each image; what is one for all stays."""
    if isinstance(value, Tensor) and value.ndim:
        return value[list(places)]
    return [value[place] for place in places] if isinstance(value, (tuple, list)) else value


def _in_words(value: object) -> str:
    """A class, or that there is one for each image."""
    one = value.item() if isinstance(value, Tensor) and not value.ndim else value
    return str(one) if isinstance(one, (int, str)) else "one per image"
