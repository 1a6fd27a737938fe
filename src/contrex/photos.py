"""Explaining single photos: from image files to a picture and the classes behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from contrex.data.files.images import read_image
from contrex.data.files.tables import read_classes
from contrex.data.views.squares import central_square, pixels, short_side
from contrex.errors import ArgumentError
from contrex.explain import Explainer
from contrex.explain.figure import Panel, Row, draw, pictures
from contrex.explain.named import build_explainer
from contrex.explain.words import question
from contrex.models import Classifier, class_index, class_names, eval_mode, load_classifier, model_logits
from contrex.models.own import INTERPOLATIONS
from contrex.ops import scores
from contrex.ops.scores import CONTRASTS
from contrex.settings import Model
from contrex.training import load_trained

NUM_TOP = 5
"""How many of the most probable classes are named."""

DEFAULT_SIDE = 224
"""The shorter side of a photo, in pixels, for a classifier that does not say."""


@dataclass(frozen=True, eq=False)
class PhotoExplanation:
    """One photo, explained by one explainer: the image [1,3,H,W] in [0, 1], and panels, each a heatmap with its
    question."""

    path: Path
    image: Tensor
    explainer: str
    panels: Sequence[Panel]
    top: Sequence[tuple[str, float]]
    """The most probable classes, by name, with their probabilities."""
    place: str | None = None
    """The explained layer and its grid, in words; None if the pixels are explained."""


@dataclass(frozen=True)
class Asked:
    """What to draw of each photo: heatmaps by every explainer, of every class, with every contrast.

    `classes` are names or indices. Without them, the `top` most probable classes of each photo are explained, or,
    without `top`, the most probable one; for labels (`task="multilabel"`) it is all with a probability above
    `threshold` (0.5), at least one. A contrast is `"none"`, `"mean"`, `"max"`, `"weighted"`, or a class by name or
    index. Without contrasts it is none; with `top`, where classes compete in a softmax, the weighted one too. `task` is
    as in `contrex.ops.scores`.
    """

    explainers: Sequence[str] = ("grad_cam",)
    layer: str | None = None
    classes: Sequence[str] = ()
    top: int | None = None
    contrasts: Sequence[str] = ()
    task: str | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and (self.classes or self.top is not None):
            raise ArgumentError(
                f"`threshold` {self.threshold} chooses the labels to explain, and so do `target` and `top`: give "
                "one of them."
            )

    def classes_of(self, logits: Tensor, names: Sequence[str]) -> list[int]:
        """The classes to explain for a photo with the logits [1,K]."""
        if self.classes:
            return [class_index(text, names) for text in self.classes]
        task = scores.task_of(logits, self.task)
        k = 1 if self.top is None and task != "multilabel" else self.top
        k = None if k is None else min(k, len(names))
        classes: list[int] = scores.many_classes(None, logits, k, task, self.threshold)[0].tolist()
        return classes

    def contrasts_of(self, logits: Tensor) -> Sequence[str]:
        """The contrasts to draw for a photo with these logits."""
        competes = scores.task_of(logits, self.task) == "multiclass"
        return self.contrasts or (("none", "weighted") if self.top is not None and competes else ("none",))


@dataclass(frozen=True, eq=False)
class NamedClassifier:
    """A classifier, the names of its classes, and the side of the images that it was made for, in pixels.

    Empty names stand for ImageNet's if there are 1000 classes, else for indices.
    """

    classifier: Classifier
    names: Sequence[str]
    side: int

    def names_of(self, num_classes: int) -> Sequence[str]:
        """A name for each class.

        Raises:
            ArgumentError: there are more or fewer names than classes.
        """
        names = self.names or class_names(num_classes)
        if len(names) != num_classes:
            raise ArgumentError(
                f"`classes` has {len(names)} names, the classifier {num_classes} classes (one logit has two): "
                "give one name for each."
            )
        return names


def classifier_of(run: Path | None, model: Model, classes: Sequence[str] = ()) -> NamedClassifier:
    """The classifier of a trained run, of a weights file, or of a library with its own weights.

    `classes` are the names of its classes, or the file that has them.
    """
    names = _names(classes) or model.classes
    if run is not None:
        recipe, classifier, own_names = load_trained(run)
        return NamedClassifier(classifier, names or own_names, recipe.data.image_size)
    if model.is_untrained:
        raise ArgumentError(
            "`model.weights` is needed: an untrained network explains nothing. Or pass --run, or --pretrained for the "
            "library's own weights."
        )
    classifier = load_classifier(replace(model, classes=tuple(names)))
    return NamedClassifier(classifier, names or classifier.names, classifier.image_size or DEFAULT_SIDE)


def _names(classes: Sequence[str]) -> Sequence[str]:
    """Names of classes; a single one is the file that has them."""
    if isinstance(classes, (str, Path)) or len(classes) == 1:
        (file,) = [classes] if isinstance(classes, (str, Path)) else classes
        return [name for _, name in read_classes(Path(file))]
    return classes


def seen_by(named: NamedClassifier, photo: Image.Image, side: int) -> tuple[Image.Image, Tensor]:
    """What a classifier sees of a photo, with a shorter side of `side` pixels, and its logits [1,K].

    That is the whole photo; for networks that take no other size than the one they were made for (vision transformers)
    it is the central square.
    """
    how, made_for = INTERPOLATIONS[named.classifier.interpolation], named.classifier.image_size
    whole = short_side(photo, side, how)
    try:
        return whole, _logits(named.classifier, whole)
    except (RuntimeError, ValueError, AssertionError):
        resize = named.classifier.short_side if side == made_for else None
        square = central_square(photo, resize=resize or side, size=side, how=how)
        if square.size == whole.size:
            raise
        return square, _logits(named.classifier, square)


def _logits(classifier: Classifier, image: Image.Image) -> Tensor:
    with eval_mode(classifier.network), torch.inference_mode():
        return model_logits(classifier.network, classifier.normalise(pixels(image)[None] / 255)).float()


def explain_photos(
    paths: Sequence[Path], named: NamedClassifier, asked: Asked, *, side: int | None = None
) -> list[PhotoExplanation]:
    """Explain each photo by itself, uncropped, with a shorter side of `side` pixels (None: the classifier's).

    Raises:
        ArgumentError: `side` is below 1, or an argument does not fit the classifier.
        ImageError: a photo cannot be read.
    """
    shorter = named.side if side is None else side
    if shorter < 1:
        raise ArgumentError(f"`side` must be at least 1 pixel, got {shorter}: it is the photo's shorter side.")
    network = named.classifier.network
    explainers = {name: build_explainer(network, name, asked.layer) for name in asked.explainers}
    results = []
    for path in paths:
        seen, logits = seen_by(named, read_image(path), shorter)
        image = pixels(seen)[None] / 255
        inputs = named.classifier.normalise(image)
        names = named.names_of(scores.class_logits(logits, asked.task).shape[1])
        top = _most_probable(logits, names, asked.task)
        for name, explain in explainers.items():
            panels = _panels(explain, inputs, logits, asked, names)
            results.append(PhotoExplanation(path, image, name, panels, top, explain.place))
    return results


def _most_probable(logits: Tensor, names: Sequence[str], task: str | None) -> list[tuple[str, float]]:
    """The most probable classes of one photo, by name, with their probabilities."""
    probs = scores.probabilities(logits, task)[0].tolist()
    order = scores.many_classes(None, logits, min(NUM_TOP, len(names)), task)[0].tolist()
    return [(names[index], probs[index]) for index in order]


def _panels(explain: Explainer, inputs: Tensor, logits: Tensor, asked: Asked, names: Sequence[str]) -> list[Panel]:
    """The panels of one photo, class by class and, within a class, contrast by contrast."""
    classes, columns = asked.classes_of(logits, names), []
    for text in asked.contrasts_of(logits):
        against = _contrast(text, names)
        maps = explain.classes(inputs, classes=classes, contrast=against, task=asked.task).heatmap[0]
        columns.append(
            [
                Panel(m, question(names, t, [against] if isinstance(against, int) else against))
                for m, t in zip(maps, classes, strict=True)
            ]
        )
    return [panel for of_a_class in zip(*columns, strict=True) for panel in of_a_class]


def _contrast(text: str, names: Sequence[str]) -> str | int | None:
    if text == "none":
        return None
    return text if text in CONTRASTS else class_index(text, names, what="`contrast`")


def save_picture(results: Sequence[PhotoExplanation], output: Path) -> None:
    """Draw all photos and their heatmaps in one picture, and write it to `output`; the suffix is the format.

    Raises:
        ArgumentError: `output` has no suffix, or not that of a picture format.
    """
    if not output.suffix:
        raise ArgumentError(f"`output` {output} must end in a picture format, as in {output}.png.")
    several = len({result.explainer for result in results}) > 1
    rows = [
        Row(pictures(r.image)[0], r.panels, "\n".join([r.path.name, _answer(r), *([r.explainer] if several else [])]))
        for r in results
    ]
    figure = draw(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(output, dpi=150)
    except ValueError as error:
        raise ArgumentError(f"`output` {output} has no picture format: {error}") from None


def _answer(result: PhotoExplanation) -> str:
    return ", ".join(f"{name} {probability:.0%}" for name, probability in result.top[:2])
