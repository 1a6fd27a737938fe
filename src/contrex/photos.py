"""Explaining single photos: from image files to a picture and the classes behind it."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contrex.data.files.images import decoded_image, is_image
from contrex.data.files.tables import read_classes
from contrex.data.views.squares import central_square, pixels, short_side
from contrex.errors import ArgumentError, ImageError, printable
from contrex.explain import Explainer, Explanation
from contrex.explain.named import build_explainer
from contrex.explain.page import written
from contrex.explain.picture import SHARP, Photo, photo_page
from contrex.explain.words import class_name, in_words, most_probable
from contrex.models import Classifier, class_index, class_names, eval_mode, load_classifier, model_logits
from contrex.models.named import library_of
from contrex.models.own import INTERPOLATIONS
from contrex.ops import scores
from contrex.ops.scores import Contrast
from contrex.records import write_atomically
from contrex.settings import Model
from contrex.settings.contrast import is_contrast, read_contrast
from contrex.training import load_trained

DEFAULT_SIDE = 224
"""The shorter side of a photo, in pixels, for a classifier that does not say."""


LARGEST_SIDE = 640
"""Pixels of the longer side of a photo as it is kept for a picture."""


@dataclass(frozen=True, eq=False)
class PhotoExplanation:
    """One photo, with all that was asked about it: a row of explanations for each explainer, all with the same
    questions, and the image [1,3,H,W] in [0, 1] that the network saw."""

    path: Path
    image: Tensor
    size: tuple[int, int]
    """Width and height of the photo, upright, before it was resized."""
    sha256: str
    """Of the file."""
    explainers: Sequence[str]
    """The text that named each explainer."""
    rows: Sequence[Sequence[Explanation]]
    expected: int | None = None
    """The class that the caller expected, if one was named."""

    @property
    def is_as_expected(self) -> bool:
        """Whether the class that the network says is the expected one."""
        first = self.rows[0][0]
        return self.expected is not None and self.expected == int(scores.predicted(first.logits, first.task))

    @property
    def remark(self) -> str:
        """Whether the prediction is the expected class, in words; empty where none was named."""
        if self.expected is None:
            return ""
        first = self.rows[0][0]
        said, expected = (class_name(first.names, one) for one in (int(first.target), self.expected))
        return f"the prediction is {said}, as expected" if self.is_as_expected else f"predicted {said}, not {expected}"

    @property
    def top(self) -> list[tuple[str, float]]:
        """The most probable classes, by name, with their probabilities."""
        return most_probable(self.rows[0][0])

    def lines(self) -> list[str]:
        """What was asked about the photo, by which explainer, and the classes that the network sees."""
        asked = [
            f"{self.path}: {name}: {in_words(why)[0].question}{_doubt(why)}"
            for name, row in zip(self.explainers, self.rows, strict=True)
            for why in row
        ]
        told = [f"{self.path}: {self.remark}"] if self.remark else []
        return [*told, *asked, str(self.path), *(f"  {probability:7.2%}  {name}" for name, probability in self.top)]


def _doubt(why: Explanation) -> str:
    note = "the map is zero everywhere" if bool(why.empty) else in_words(why)[0].note
    return f"   ({note})" if note else ""


@dataclass(frozen=True)
class Asked:
    """What to draw of each photo: heatmaps by every explainer, of every class, with every contrast.

    `classes` are names or indices. Without them, the `top` most probable classes of each photo are explained, or,
    without `top`, the most probable one; for labels (`task="multilabel"`) it is all with a probability above
    `threshold` (0.5), at least one. A contrast is `"none"`, one with a name and perhaps options (`"mean"`, `"max"`,
    `"weighted"`, `"nearest(k=3, alpha=1.0)"`), or a class by name or index. Without contrasts it is none; with `top`,
    where classes compete in a softmax, the weighted one too. `task` is as in `contrex.ops.scores`.

    With `expected`, the class that the photo is of, by name or index, it is asked why the network says another: the
    predicted class, that rather than the expected one, and the reverse. Where it says the expected one, that alone.
    """

    explainers: Sequence[str] = ("grad_cam",)
    layer: str | None = None
    classes: Sequence[str] = ()
    top: int | None = None
    contrasts: Sequence[str] = ()
    task: str | None = None
    threshold: float | None = None
    expected: str | None = None

    def __post_init__(self) -> None:
        if self.expected is not None and (
            self.classes or self.contrasts or self.top is not None or self.threshold is not None
        ):
            raise ArgumentError(
                f"`expected` {self.expected} chooses the classes and the contrasts, and so do `target`, `top`, "
                "`contrast` and `threshold`: leave them out."
            )
        if self.threshold is not None and (self.classes or self.top is not None):
            raise ArgumentError(
                f"`threshold` {self.threshold} chooses the labels to explain, and so do `target` and `top`: give "
                "one of them."
            )

    def questions(self, logits: Tensor, names: Sequence[str]) -> Sequence[Questions]:
        """What is asked about a photo with the logits [1,K], classes as their indices."""
        if self.expected is None:
            contrasts = [_contrast(text, names) for text in self.contrasts_of(logits)]
            return [Questions(self.classes_of(logits, names), contrasts)]
        expected = class_index(self.expected, names, what="`expected`")
        predicted = int(scores.predicted(logits, self.task))
        if predicted == expected:
            return [Questions([predicted], [None])]
        return [Questions([predicted], [None, expected]), Questions([expected], [predicted])]

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


@dataclass(frozen=True)
class Questions:
    """The classes that are explained, each with every contrast: none, the name of one, a class, or several
    (`[[1, 2]]`)."""

    classes: Sequence[int]
    contrasts: Sequence[Contrast]


def _contrast(text: str, names: Sequence[str]) -> str | int | None:
    if text == "none":
        return None
    return str(read_contrast(text)) if is_contrast(text) else class_index(text, names, what="`contrast`")


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
    library_of(model.name)
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


@dataclass(frozen=True, eq=False)
class Opened:
    """A photo as it was read, upright RGB, with the SHA-256 of its file."""

    path: Path
    image: Image.Image
    sha256: str

    def shown(self, seen: Image.Image) -> Photo:
        """The picture to draw maps on, of the part that a network saw: the photo itself is sharper than what the
        network saw of it, but a network may see the square only."""
        is_whole = abs(seen.width * self.image.height / (seen.height * self.image.width) - 1) < 0.05
        shown = self.image.copy() if is_whole else seen.copy()
        shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        return Photo(np.array(shown), self.path.name, self.sha256, is_file=True)


def opened(path: Path) -> Opened:
    """Read a photo.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read image '{printable(path)}': {error.strerror}. Replace or remove it.") from error
    return Opened(path, decoded_image(content, str(path)), hashlib.sha256(content).hexdigest())


def found_photos(paths: Sequence[Path]) -> list[Path]:
    """The photos that paths name, each once: files, the images in folders and below them, and those that a wildcard
    (`cats/*.jpg`) matches, for shells that do not.

    Raises:
        ArgumentError: there is no image in a folder, or none that a wildcard matches.
    """
    found: dict[Path, None] = {}
    for path in paths:
        some = [path]
        if path.is_dir():
            some = sorted(one for one in path.rglob("*") if is_image(one))
        elif not path.exists() and glob.has_magic(str(path)):
            some = sorted(Path(name) for name in _matched(str(path)) if is_image(name))
        if not some:
            raise ArgumentError(
                f"`photos` {path} has no image in it: name an image, a folder of them, or 'FOLDER/*.jpg'."
            )
        found.update(dict.fromkeys(some))
    return list(found)


def _matched(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - `Path.glob` takes no pattern that is absolute


class Photographer:
    """Explains photos, one after the other, each by itself and uncropped, with a shorter side of `side` pixels (None:
    the classifier's).

    Raises:
        ArgumentError: `side` is below 1, or an explainer does not fit the classifier.
    """

    def __init__(self, named: NamedClassifier, asked: Asked, *, side: int | None = None) -> None:
        self.side = named.side if side is None else side
        if self.side < 1:
            raise ArgumentError(f"`side` must be at least 1 pixel, got {self.side}: it is the photo's shorter side.")
        self.named, self.asked = named, asked
        self._explainers = [build_explainer(named.classifier.network, name, asked.layer) for name in asked.explainers]

    def explain(self, path: Path, questions: Questions | Sequence[Questions] | None = None) -> PhotoExplanation:
        """Explain one photo: what was asked of all, or these questions, one after the other.

        Raises:
            ArgumentError: an argument does not fit the classifier.
            ImageError: the photo cannot be read.
        """
        found = opened(path)
        seen, logits = seen_by(self.named, found.image, self.side)
        image = pixels(seen)[None] / 255
        inputs = self.named.classifier.normalise(image)
        names = self.named.names_of(scores.class_logits(logits, self.asked.task).shape[1])
        questions = questions or self.asked.questions(logits, names)
        several = [questions] if isinstance(questions, Questions) else questions
        kept = found.shown(seen)
        rows = [
            [replace(one, images=(kept,)) for some in several for one in self._row(explain, inputs, some, names)]
            for explain in self._explainers
        ]
        expected = self.asked.expected
        index = None if expected is None else class_index(expected, names, what="`expected`")
        return PhotoExplanation(path, image, found.image.size, found.sha256, self.asked.explainers, rows, index)

    def _row(self, explain: Explainer, inputs: Tensor, questions: Questions, names: Sequence[str]) -> list[Explanation]:
        """The explanations by one explainer, class by class and, within a class, contrast by contrast."""
        explain.names = tuple(names)
        found = explain.contrasts(inputs, questions.contrasts, classes=questions.classes, task=self.asked.task)
        return [
            of_a_class
            for of_classes in zip(*(one.columns() for one in found), strict=True)
            for of_a_class in of_classes
        ]


def explain_photos(
    paths: Sequence[Path], named: NamedClassifier, asked: Asked, *, side: int | None = None
) -> list[PhotoExplanation]:
    """Explain each photo by itself; arguments and errors as in `Photographer`."""
    photographer = Photographer(named, asked, side=side)
    return [photographer.explain(path) for path in paths]


def save_pictures(results: Sequence[PhotoExplanation], output: Path) -> None:
    """Write the pictures of photos to a file: a PDF has a page for each, the other formats have one photo."""
    write_atomically(
        output, written([photo_page(result.rows, result.remark) for result in results], output.suffix.lower(), SHARP)
    )
