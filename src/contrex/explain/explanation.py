"""What an explainer returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain import words
from contrex.ops import heatmap as heatmaps
from contrex.ops import scores
from contrex.ops.scores import Contrast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from contrex.explain.explorer.page import ExplorerPage
    from contrex.explain.picture import Photo
    from contrex.models import Classifier


@dataclass(frozen=True, eq=False, repr=False)
class Explained:
    """Maps with all that they explain, in what one image and many, one class and several have in common.

    `contrast` is what the targets are explained against, as it was asked (names of classes as their indices), `score`
    what is explained of a class. `explainer` names the method with the `options` that it was told, `options` has all of
    them; `layer` and `grid` [h,w] are where it looked, None for the pixels. `names` are those of the classes, none
    where the explainer has none; `images` are the pictures, none where only tensors were given (`on` adds them); `unit`
    says in words what a cell is worth.

    In a notebook the last line of a cell is drawn. Nothing leaves the device before something is shown or saved.
    """

    heatmap: Tensor
    logits: Tensor
    target: Tensor
    task: str | None = None
    _: KW_ONLY
    contrast: Contrast = None
    score: str = "logit"
    explainer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    grid: tuple[int, ...] | None = None
    names: Sequence[str] = ()
    images: Sequence[Photo] = ()
    unit: str = ""

    def __len__(self) -> int:
        return len(self.heatmap)

    def __getitem__(self, index: int | slice) -> Self:
        """The explanation of one image, still a batch, or of several."""
        if not isinstance(index, slice):
            place = range(len(self))[index]  # or an IndexError
            index = slice(place, place + 1)
        kept = {name: getattr(self, name)[index] for name in ("heatmap", "logits", "target", "images")}
        return replace(self, contrast=_contrast_of(self.contrast, index), **kept)

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return words.summary(self)

    @property
    def place(self) -> str | None:
        """The explained layer and its grid, in words: "layer4, 7 x 7"; None for the pixels."""
        return None if self.grid is None else f"{self.layer}, {' x '.join(map(str, self.grid))}"

    def columns(self) -> list[Explanation]:
        """One explanation for each class that images have a map of."""
        raise NotImplementedError

    def on(
        self,
        images: Tensor,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        channels: Sequence[int] | None = None,
    ) -> Self:
        """The same explanation with the pictures to draw it on; arguments and errors as in `Explanation.show`."""
        from contrex.explain.picture import check_drawable, photos_of

        for column in self.columns():
            check_drawable(column)
        return replace(self, images=photos_of(checked_images(images, len(self)), mean, std, channels))

    def overlay(self) -> Image.Image | list[Image.Image]:
        """Each image in grey with its map in colours on it, in the image's size; a list where there are several images
        or classes. Red speaks for the class and blue against it. Without images the colours stand alone.

        Raises:
            ArgumentError: a map is not finite.
        """
        from contrex.explain.picture import overlays

        found = [one for column in self.columns() for one in overlays(column)]
        return found[0] if len(found) == 1 else found

    def save(self, path: str | Path) -> None:
        """Write what is explained to a file, whole or not at all; its suffix says what is written.

        `.png`, `.jpg`, `.webp`, `.pdf`, `.svg`: the picture, as a notebook shows it, of all images. `.json`: versions,
        images (size, SHA-256), classes with probabilities, method, options, layer and grid, contrast, maps and logits.
        `.npz`: the arrays `heatmap`, `logits` and `target`, and the rest of that as JSON in the text `about`.

        Raises:
            ArgumentError: another suffix, or a map is not finite where it is drawn.
        """
        from contrex.explain.saved import save

        save(self, Path(path))

    def explore(self, classifier: Classifier | nn.Module | None = None, *, height: int = 900) -> ExplorerPage:
        """A page that asks any class against any other, which a notebook shows, `height` pixels high; `.save(path)`
        writes it, and `.html` is its text. It needs no network and no server.

        What `contrex.why` gives is asked again about all classes, and about flipped and cropped pictures. Other
        explanations are with their `classifier`; without it, the page has the classes that the explanation has.

        Raises:
            ArgumentError: there are no pictures, or, without a classifier, the map of one question only.
        """
        from contrex.explain.explorer.of_explanation import page_of

        return page_of(self, classifier, height)  # type: ignore[arg-type]

    def _repr_png_(self) -> bytes | None:
        """The picture for notebooks; None, so that they show the line, where nothing can be drawn."""
        from contrex.explain.picture import png, sheet

        try:
            return png(sheet(self.columns()).render())
        except ArgumentError:
            return None


class Explanation(Explained):
    """Heatmaps of images, with the classes and logits that they explain.

    `heatmap` [N,h,w] is raw and signed, float32 (float64 for a float64 model), on the images' device, at layer size:
    positive cells speak for the target, negative ones against it - or, with a contrast, for the other classes.
    `logits` [N,K] come from the same forward pass; `target` [N] holds the explained classes. `task` says what the
    logits are (`contrex.ops.scores`): "multiclass", "binary" or "multilabel", None by their number.
    """

    @classmethod
    def cat(cls, parts: Sequence[Explanation]) -> Explanation:
        """Join explanations of one task, score and kind of contrast, in their order; at least one.

        What else they know - explainer, layer, names, images - is kept where all know the same.

        Raises:
            ArgumentError: there are none, or they differ.
        """
        tasks = {part.task for part in parts}
        if len(tasks) != 1:
            raise ArgumentError(
                f"`parts` must be explanations of one task, got {len(parts)} of {sorted(map(str, tasks))}."
            )
        heatmap, logits, target = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("heatmap", "logits", "target")
        )
        same = {
            name: getattr(parts[0], name)
            for name in ("explainer", "options", "layer", "grid", "names", "unit")
            if all(getattr(part, name) == getattr(parts[0], name) for part in parts)
        }
        images = [image for part in parts for image in part.images]
        return cls(
            heatmap,
            logits,
            target,
            *tasks,
            contrast=_joined_contrast(parts),
            score=_joined_score(parts),
            images=tuple(images) if len(images) == len(heatmap) else (),
            **same,
        )

    @property
    def empty(self) -> Tensor:
        """Which maps [N] are zero everywhere: there is nothing to normalise, show or localise in them."""
        return heatmaps.is_empty(self.heatmap)

    @property
    def probability(self) -> Tensor:
        """The probability [N] of the target: of the softmax, or of a sigmoid where `task` says so."""
        return scores.probability(self.logits, self.target, self.task)

    @property
    def foils(self) -> Tensor | None:
        """The classes [N,F] that the target is explained against, where the contrast names some or is the strongest
        other class (`"max"`) or are the `"nearest"`; None where it is all others, or nothing."""
        return scores.foil_classes(self.logits.detach(), self.target, self.contrast, self.task)

    def columns(self) -> list[Explanation]:
        """This explanation alone: one map for each image."""
        return [self]

    def positive(self) -> Explanation:
        """The same explanation with the evidence for the target only (ReLU)."""
        return replace(self, heatmap=heatmaps.positive(self.heatmap))

    def resize(self, size: int | tuple[int, ...]) -> Explanation:
        """The same explanation with maps resized bilinearly to `size`, a square or (H, W); those of signals linearly,
        those of volumes trilinearly."""
        return replace(self, heatmap=heatmaps.resize(self.heatmap, size))

    def slice(self, place: float = 0.5) -> Explanation:
        """The same explanation of volumes at one depth, from 0 (the front) over 0.5 (the middle) to 1: maps [N,h,w], to
        be shown on slices of the volumes. Slice i of D is at `(i + 0.5) / D`. Between cells maps are interpolated.

        Raises:
            ArgumentError: the maps are no volumes', or the place is not in 0..1.
        """
        if self.heatmap.ndim != 4 or not 0 <= place <= 1:
            got = f"{list(self.heatmap.shape)} and {place}"
            raise ArgumentError(f"`slice` takes maps of volumes [N,D,H,W], and a place in 0..1; got {got}.")
        depth = self.heatmap.shape[1]
        at = min(max(place * depth - 0.5, 0.0), depth - 1.0)
        low, share = int(at), at - int(at)
        maps = torch.lerp(self.heatmap[:, low], self.heatmap[:, min(low + 1, depth - 1)], share)
        return replace(self, heatmap=maps, grid=None if self.grid is None else self.grid[1:])

    def show(
        self,
        images: Tensor | None = None,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        captions: Sequence[str] = (),
        channels: Sequence[int] | None = None,
    ) -> Figure:
        """A figure: each image beside its map, on a diverging colour map centred on zero with a colour bar.

        `images` [N,C,H,W] are what was explained, in this or another resolution: maps are resized to them; None takes
        those that the explanation has. `mean` and `std` undo their normalisation (without them, pictures that leave
        [0, 1] are stretched to it, so colours are only roughly right); `captions` name them, instead of their files and
        most probable classes. One channel is drawn grey, three in colours; of others `channels` names one or three.
        Pictures more than four times as long as wide are drawn as four times.

        Signals [N,C,L] are drawn as lines, each before the colours of its map; of volumes draw a `slice`.

        Raises:
            ArgumentError: there is not one image, or not one caption, per map; channels cannot be drawn; pixels are not
                finite; there are more images than fit into one figure; or they are volumes.
        """
        from contrex.explain.figure import Panel, Row, draw, draw_signals
        from contrex.explain.picture import check_drawable, photos_of

        if captions and len(captions) != len(self):
            raise ArgumentError(f"`captions` must be {len(self)} texts, one per map; got {len(captions)}.")
        told = words.in_words(self)
        if self.heatmap.ndim == 2:
            signals = checked_images(images, len(self), 3)
            panels = [Panel(values, said.title, self.unit) for values, said in zip(self.heatmap, told, strict=True)]
            return draw_signals(signals, panels, captions or [said.answer for said in told])
        check_drawable(self)
        photos = self.images
        if images is not None or not photos:
            photos = photos_of(checked_images(images, len(self)), mean, std, channels)
        named = captions or ["\n".join(filter(None, [p.name, w.answer])) for p, w in zip(photos, told, strict=True)]
        shown = zip(photos, self.heatmap, told, named, strict=True)
        return draw(
            [Row(photo.values(), [Panel(values, said.title, self.unit)], name) for photo, values, said, name in shown]
        )


@dataclass(frozen=True, eq=False, repr=False)
class ClassExplanations(Explained):
    """Signed maps of several classes of each image, from one forward pass.

    `heatmap` [N,M,h,w], `logits` [N,K], `target` [N,M]: the classes, most probable first unless they were named.
    `task` as in `Explanation`; `score` is what was explained of each class; `threshold` says which labels are
    `present`.
    """

    threshold: float = scores.DEFAULT_THRESHOLD

    @property
    def probability(self) -> Tensor:
        """The probability [N,M] of each class: of the softmax, or of a sigmoid where `task` says so."""
        return scores.probabilities(self.logits, self.task).gather(1, self.target)

    @property
    def present(self) -> Tensor:
        """Which classes [N,M], boolean, have a probability above the threshold: images have different numbers of
        labels, and all have M maps."""
        return self.probability > self.threshold

    def columns(self) -> list[Explanation]:
        """The explanation of each of the M classes."""
        return [self.explanation(index) for index in range(self.target.shape[1])]

    def explanation(self, index: int) -> Explanation:
        """The explanation of the class at place `index` of each image."""
        return self._explanation(self.heatmap[:, index], index, self.contrast)

    def pair(self, index: int, foil: int) -> Explanation:
        """Why the class at place `index` rather than the one at place `foil`: the difference of their maps (half of it
        for the two sides of one logit, whose contrast is that logit).

        Raises:
            ArgumentError: the maps are contrasts already.
        """
        self._check_plain("pair")
        difference = self._scale * (self.heatmap[:, index] - self.heatmap[:, foil])
        return self._explanation(difference, index, self.target[:, foil])

    def _explanation(self, heatmap: Tensor, index: int, contrast: Contrast) -> Explanation:
        kept = {name: getattr(self, name) for name in KEPT}
        return Explanation(heatmap, self.logits, self.target[:, index], self.task, contrast=contrast, **kept)

    def _check_plain(self, name: str) -> None:
        if self.contrast is not None:
            raise ArgumentError(
                f"`{name}` takes maps of classes off each other, and these are contrasts already ({self.contrast!r}): "
                "ask `classes(images)` without `contrast`."
            )

    def pairs(self) -> Tensor:
        """All pairwise contrasts `[N,M,M,h,w]`: entry (i, j) is why class i rather than class j. Errors as in
        `pair`."""
        self._check_plain("pairs")
        return self._scale * (self.heatmap[:, :, None] - self.heatmap[:, None, :])

    def weighted(self) -> Tensor:
        """The weighted contrast `[N,M,h,w]` of each class against the other M - 1: `phi_i - sum_j a_j phi_j`; half of
        it for the two sides of one logit, and `phi_i` for labels, which do not compete.

        Raises:
            ArgumentError: there is one class only, and classes compete; or the maps are contrasts already.
        """
        self._check_plain("weighted")
        if scores.task_of(self.logits, self.task) == "multilabel":
            return self.heatmap
        logits = scores.class_logits(self.logits, self.task).gather(1, self.target)
        num = logits.shape[1]
        if num < 2:
            raise ArgumentError("`weighted` needs the maps of at least two classes, there is one: ask for k=2 or more.")
        itself = torch.eye(num, dtype=torch.bool, device=logits.device)
        weights = logits[:, None].expand(-1, num, -1).masked_fill(itself, float("-inf")).softmax(2)
        others = torch.einsum("nij,nj...->ni...", weights.to(self.heatmap), self.heatmap)
        return self._scale * (self.heatmap - others)

    @property
    def _scale(self) -> float:
        return scores.contrast_scale(scores.task_of(self.logits, self.task), self.score)


KEPT = ("score", "explainer", "options", "layer", "grid", "names", "images", "unit")
"""What the explanation of one class, or question, has of that of several."""


def checked_images(images: object, num: int, ndim: int = 4) -> Tensor:
    """Images for `num` maps, or signals where there are three axes, or `ArgumentError`."""
    if not isinstance(images, Tensor) or images.ndim != ndim or len(images) != num or not images.numel():
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ArgumentError(f"`images` must be [{num},C,{'L' if ndim == 3 else 'H,W'}], one per map; got {got}.")
    return images


def _contrast_of(contrast: Contrast, some: slice) -> Contrast:
    """The contrast of some of the images: foils may be one for each, [N], or several, [N,F]."""
    if contrast is None or isinstance(contrast, (str, int)):
        return contrast
    many = torch.as_tensor(contrast)
    return many if many.ndim == 0 or (many.ndim == 2 and len(many) == 1) else many[some]


def _joined_contrast(parts: Sequence[Explanation]) -> Contrast:
    asked = [part.contrast for part in parts]
    if any(contrast is None or isinstance(contrast, str) for contrast in asked):
        if any(not isinstance(contrast, type(asked[0])) or contrast != asked[0] for contrast in asked):
            raise ArgumentError(f"`parts` must have one kind of contrast, got {sorted({str(one) for one in asked})}.")
        return asked[0]
    if all(isinstance(contrast, int) and contrast == asked[0] for contrast in asked):
        return asked[0]
    foils = [part.foils for part in parts]
    if len({found.shape[1] for found in foils if found is not None}) > 1:
        raise ArgumentError("`parts` must have the same number of foils: join those that were asked alike.")
    return torch.cat([found for found in foils if found is not None])


def _joined_score(parts: Sequence[Explanation]) -> str:
    found = {part.score for part in parts}
    if len(found) > 1:
        raise ArgumentError(f"`parts` must be explanations of one score, got {sorted(found)}.")
    return found.pop()
