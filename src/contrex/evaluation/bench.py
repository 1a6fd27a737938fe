"""The bench: a classifier with its explainer on a device. And groups: images, with what the bench computes of them.

Every image is judged in two forms. The *square* is what the network was made for: the shorter side is resized, and the
central square cut out. Accuracy, curves, consistency and everything that changes pixels use it. The *whole* image,
uncropped, is for localisation, as in the published protocol, so that no part of a box is cut off.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex import ranks, settings
from contrex.data.streams import stream
from contrex.data.views.evaluation import Views, Whole
from contrex.devices import device_named, images_at_once
from contrex.errors import ArgumentError
from contrex.evaluation.subject import Subject
from contrex.explain import Explainer, Explanation, LayerExplainer
from contrex.explain.forward.head import forward_features, head_rows
from contrex.explain.named import build_explainer, options_in_words
from contrex.metrics import CurveMean
from contrex.metrics.curve_mean import Point
from contrex.models import classifier_head, eval_mode, model_logits
from contrex.ops import heatmap
from contrex.ops.geometry import Crop, random_crop
from contrex.settings.contrast import read_contrast

Pictures = Literal["squares", "wholes", "grids"]
"""What is explained: the squares that are classified, whole images, or grids of squares."""


class Bench:
    """Run the network and the explainer chunk by chunk; an error names the image that caused it."""

    def __init__(self, subject: Subject, options: settings.Evaluation) -> None:
        self.subject = subject
        self.options = options
        self.device = device_named(options.device)
        self.chunk = images_at_once(self.device, options.batch_size)
        self.network = subject.classifier.network.to(self.device)
        self.explainer: Explainer = build_explainer(self.network, options.explainer, options.layer)
        self._places: dict[Pictures, set[tuple[str, tuple[int, ...]]]] = defaultdict(set)
        """The layers and grids that the explainer has explained so far, in each kind of pictures."""

    def normalise(self, images: Tensor) -> Tensor:
        """The uint8 `images` on the device, normalised as the network expects."""
        return self.subject.classifier.normalise(images.to(self.device))

    def logits(self, images: Tensor) -> Tensor:
        """The logits of normalised `images`, in eval mode."""
        with eval_mode(self.network), torch.inference_mode():
            chunks = images.split(self.chunk)  # type: ignore[no-untyped-call]
            return torch.cat([model_logits(self.network, chunk).float() for chunk in chunks])

    def features(self, images: Tensor) -> Tensor:
        """The features of normalised `images`: the input of the last linear layer, [N,D], in eval mode."""
        _, head = classifier_head(self.network)
        with eval_mode(self.network), torch.no_grad():
            chunks = images.split(self.chunk)  # type: ignore[no-untyped-call]
            return torch.cat([forward_features(self.network, some, head)[0] for some in chunks])

    def explain(
        self,
        images: Tensor,
        target: Tensor | None,
        group: Sequence[Views],
        *,
        contrast: str | None = None,
        explainer: Explainer | None = None,
        pictures: Pictures = "squares",
    ) -> Explanation:
        """The explanation of normalised `images`, which are `pictures`, by `explainer` or else the bench's own.

        `group` has the paths of the images, for the error of one that cannot be explained.
        """
        chosen = explainer or self.explainer

        def part(start: int, num: int) -> Explanation:
            some = None if target is None else target[start : start + num]
            return chosen(images[start : start + num], target=some, contrast=contrast, task=self.options.task)

        try:
            parts = [part(start, self.chunk) for start in range(0, len(images), self.chunk)]
        except ArgumentError as error:
            raise of_an_image(error, group, lambda position: part(position, 1)) from None
        self._note_place(pictures)
        return Explanation.cat(parts)

    def explain_classes(
        self,
        images: Tensor,
        classes: Tensor,
        group: Sequence[Views],
        contrasts: Sequence[str | None],
        *,
        pictures: Pictures = "squares",
    ) -> Tensor:
        """The signed heatmaps [B,N,M,h,w]: for each of B `contrasts` and N images those of M `classes` [N,M].

        Each chunk of images takes one forward pass.
        """

        def part(start: int, num: int) -> Tensor:
            some = slice(start, start + num)
            explanations = self.explainer.contrasts(
                images[some], contrasts, classes=classes[some], task=self.options.task
            )
            return torch.stack([explanations.heatmap for explanations in explanations])

        try:
            parts = [part(start, self.chunk) for start in range(0, len(images), self.chunk)]
        except ArgumentError as error:
            raise of_an_image(error, group, lambda position: part(position, 1)) from None
        self._note_place(pictures)
        return torch.cat(parts, dim=1)

    def seeds(self, purpose: str, indices: Sequence[int]) -> list[int]:
        """A seed for each image, made of its index and `evaluation.seed`: no batch or process changes it."""
        return [int(stream(purpose, self.options.seed, index).integers(2**62)) for index in indices]

    def crop(self, purpose: str, index: int, side: int) -> Crop:
        """The random crop of one image, by the run's own augmentation, or the usual one for files of weights. Else it
        depends on `evaluation.seed` and the image's index only."""
        asked, generator = self.subject.augmentation, stream(purpose, self.options.seed, index)
        return random_crop(1, side, scale=asked.scale, ratio=asked.ratio, flip=asked.flip, generator=generator)

    def points(self, mean: CurveMean, x: Sequence[float]) -> list[Point]:
        """A mean curve at the places `x`, with its interval. A sync point: all processes must call it."""
        return mean.points(x, num_bootstrap=self.options.num_bootstrap, seed=self.options.seed)

    def shared_details(self, pictures: Pictures = "squares") -> dict[str, object]:
        """How the heatmaps of `pictures` behind a number were made: by which explainer, at which layer, on which grid.

        A sync point: all processes must call it.
        """
        # Each process knows the grids of its own images only, and there is one record for all.
        places = sorted(set(itertools.chain.from_iterable(ranks.gathered(sorted(self._places[pictures])))))
        layers, grids = ", ".join(sorted({layer for layer, _ in places})), sorted({grid for _, grid in places})
        own = self.explainer.layer if isinstance(self.explainer, LayerExplainer) else "input"
        options = options_in_words(self.options.explainer)
        details: dict[str, object] = {
            "explainer": self.options.explainer,
            **({"explainer_options": options} if options else {}),
            "layer": layers or own,
            "contrast": self.options.contrast and str(read_contrast(self.options.contrast)),
        }
        if not grids:
            return details
        grid, num = " x ".join(map(str, grids[0])), len(grids)
        return {**details, "grid": grid if num == 1 else f"{grid} and {num - 1} more, by the images' sizes"}

    def _note_place(self, pictures: Pictures) -> None:
        if isinstance(self.explainer, LayerExplainer) and self.explainer.grid is not None:
            self._places[pictures].add((str(self.explainer.layer), self.explainer.grid))


@dataclass(frozen=True, eq=False)
class Wholes:
    """Whole images of one shape, with the heatmaps [N,h,w] of their labels, or of other classes."""

    views: Sequence[Views]
    heatmaps: Tensor

    @property
    def images(self) -> list[Whole]:
        """The whole images themselves, with what is known of their objects."""
        return [views.whole for views in self.views if views.whole is not None]

    def shown(self) -> Iterator[tuple[Views, NDArray[np.float32]]]:
        """The views of each image with its heatmap, as float32 of numpy."""
        return zip(self.views, self.heatmaps.float().cpu().numpy(), strict=True)


class Group:
    """Images that are judged together. Each property is computed when first asked for, and once."""

    def __init__(
        self,
        bench: Bench,
        views: Sequence[Views],
        *,
        has_heatmaps: bool = True,
        has_features: bool = False,
        beside: Group | None = None,
    ) -> None:
        self.bench = bench
        self.views = views
        self.has_heatmaps = has_heatmaps
        self.has_features = has_features
        self._beside = beside
        """The group of the same images for another explainer; what needs no explainer is taken from it."""
        self._features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.views)

    def alone(self, position: int) -> Group:
        """A group of one image, the one at `position`."""
        return Group(self.bench, [self.views[position]], has_heatmaps=self.has_heatmaps, has_features=self.has_features)

    @cached_property
    def indices(self) -> list[int]:
        """The index of each image in the data set."""
        return [views.index for views in self.views]

    @cached_property
    def labels(self) -> Tensor:
        """The labels [N]. Where several classes are right, the one with the largest logit (in UnRel a category is many
        classes)."""
        if any(views.also for views in self.views):
            return labels_by(self.views, self.logits)
        return torch.tensor([views.label for views in self.views], device=self.bench.device)

    @cached_property
    def squares(self) -> Tensor:
        """The normalised squares [N,3,S,S]."""
        if self._beside is not None:
            return self._beside.squares
        return self.bench.normalise(torch.stack([views.square for views in self.views]))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the squares."""
        return self.squares.shape[2], self.squares.shape[3]

    @cached_property
    def explanation(self) -> Explanation:
        """The explanation of the squares, for the predicted classes and with `evaluation.contrast`."""
        contrast = self.bench.options.contrast
        if not self.has_features:
            return self.bench.explain(self.squares, None, self.views, contrast=contrast)
        # Watched in the explanation's own forward pass, which saves one.
        with head_rows(classifier_head(self.bench.network)[1]) as seen:
            explanation = self.bench.explain(self.squares, None, self.views, contrast=contrast)
        self._features = _features_of(explanation.logits, seen, self.bench.chunk)
        return explanation

    @cached_property
    def features(self) -> Tensor:
        """The features of the squares [N,D]: the input of the classifier's last linear layer.

        With `has_features` they are taken from the explanation's forward pass, if that was an ordinary one.
        """
        known = self._features if self.has_features and self.explanation is not None else None
        return self.bench.features(self.squares) if known is None else known

    @cached_property
    def logits(self) -> Tensor:
        """The logits of the squares [N,K], from the explanation's forward pass where there is one."""
        if self.has_heatmaps:
            return self.explanation.logits
        return self.bench.logits(self.squares) if self._beside is None else self._beside.logits

    @cached_property
    def saliency(self) -> Tensor:
        """The signed heatmaps of the explanation, resized to the squares: [N,S,S]."""
        return heatmap.resize(self.explanation.heatmap, self.size)

    @cached_property
    def wholes(self) -> list[Wholes]:
        """The whole images with the heatmaps of their labels, grouped by shape."""
        shapes = of_equal_shape(self.views, range(len(self.views)))
        return [explained_wholes(self, positions, self.labels) for positions in shapes]


def labels_by(views: Sequence[Views], logits: Tensor) -> Tensor:
    """The labels [N] of images by their `logits` [N,K], or those of changed copies: where several classes are right,
    the one with the largest."""
    right = [[one.label, *one.also] for one in views]
    best = [
        classes[int(row[classes].argmax())] if len(classes) > 1 else classes[0]
        for classes, row in zip(right, logits, strict=True)
    ]
    return torch.tensor(best, device=logits.device)


def of_equal_shape(views: Sequence[Views], positions: Iterable[int]) -> list[list[int]]:
    """The positions whose views have a whole image, those of one shape together."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position in positions:
        whole = views[position].whole
        if whole is not None:
            by_shape[tuple(whole.pixels.shape)].append(position)
    return list(by_shape.values())


def explained_wholes(group: Group, positions: Sequence[int], classes: Tensor) -> Wholes:
    """The whole images at `positions`, all of one shape, with the heatmaps of their classes, of `classes` [N].

    A network that takes squares only fails here; the error then says which setting helps.
    """
    bench, same = group.bench, [group.views[position] for position in positions]
    images = bench.normalise(torch.stack([views.whole.pixels for views in same if views.whole is not None]))
    try:
        contrast = bench.options.contrast
        explanation = bench.explain(images, classes[positions], same, contrast=contrast, pictures="wholes")
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        if images.shape[2:] == same[0].square.shape[1:]:
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ArgumentError(
            f"{same[0].path}: the classifier does not take the whole image, {images.shape[2]} x "
            f"{images.shape[3]} pixels ({reason}). For a network of one input size set "
            '`content_heatmap_protocol` to "square".'
        ) from error
    return Wholes(same, explanation.heatmap)


def _features_of(logits: Tensor, seen: Sequence[tuple[Tensor, Tensor]], chunk: int) -> Tensor | None:
    """The inputs of the head that gave these `logits`, chunk by chunk; None if one of them was not `seen`.

    `seen` has (input, logits) of every call of the head, of which an explainer may make more than one.
    """
    parts = []
    for part in logits.split(chunk):  # type: ignore[no-untyped-call]
        rows = next((rows for rows, given in seen if given.shape == part.shape and given.to(part).equal(part)), None)
        if rows is None:
            return None
        parts.append(rows)
    return torch.cat(parts)


def of_an_image(error: ArgumentError, group: Sequence[Views], alone: Callable[[int], object]) -> ArgumentError:
    """The error with the path of the image that caused it: the first image for which `alone` fails as well.

    `error` itself where no image fails alone.
    """
    if any(str(error).startswith(f"{views.path}: ") for views in group):
        return error
    for position, views in enumerate(group):
        try:
            alone(position)
        except ArgumentError as own:
            is_named = str(own).startswith(f"{views.path}: ")
            return own if is_named else type(own)(f"{views.path}: {own}")
    return error
