"""Few labels: which training images have one, and what the others are.

`draw_labelled` is a pure function of labels and seed. The images of a class are shuffled by a stream of (seed, class)
and the first ones taken, so the draw of five a class holds that of one a class, and nothing but the data and the seed
decides: a baseline and a method with one seed have the same labels (CGC, section 4.2: n of each class are drawn, the
rest is the validation set; section 4.3: 1 % of ImageNet has labels, the rest is used without).

    RUN/labelled.txt    the draw of a run: a path on each line, as `Sample.path` has it; `labelled.file` takes it back

A run's images are those of `run_images` and `training_images`, never of `image_set`, which knows nothing of the draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data import image_set
from contrex.data.files.folders import shortened
from contrex.data.readers.unlabelled import UnlabelledFolder
from contrex.data.sample import Annotation, ImageSet
from contrex.data.streams import stream
from contrex.errors import DataError
from contrex.records import write_atomically
from contrex.settings import Recipe, Skipping

LIST = "labelled.txt"
"""The file of a run with its labelled images."""

Integers = NDArray[np.int64]


class TrainingImages(NamedTuple):
    """What a run is trained and validated on; `unlabelled` are those without labels, None where it takes none."""

    labelled: ImageSet
    validation: ImageSet
    unlabelled: ImageSet | None


def training_images(recipe: Recipe) -> TrainingImages:
    """The images of a run, the training images read once.

    Raises `DataError` for a draw that the images do not allow, and the readers' own errors.
    """
    folder = recipe.labelled.unlabelled
    unlabelled: ImageSet | None = None
    if folder is not None:  # unreadable images as those of `data`; where it has no setting for them, they are left out
        unlabelled = UnlabelledFolder(
            folder, on_bad_image=recipe.data.on_bad_image if isinstance(recipe.data, Skipping) else "skip"
        )
    if not recipe.labelled.is_draw:
        return TrainingImages(image_set(recipe.data, "train"), image_set(recipe.data, "val"), unlabelled)
    labelled, rest = _divide(recipe)
    unlabelled = rest if recipe.labelled.rest == "unlabelled" else unlabelled
    validation = rest if recipe.labelled.rest == "val" else image_set(recipe.data, "val")
    return TrainingImages(labelled, validation, unlabelled)


def run_images(recipe: Recipe, split: str) -> ImageSet:
    """The images that `split` means to a run: "train" are those with a label, "val" may be the rest of them.

    >>> from contrex.settings import CrossEntropy, Digits, Labelled, Model
    >>> few = Labelled(per_class=5, rest="val")
    >>> recipe = Recipe("few", Digits(num_train=90, num_test=10), Model(), CrossEntropy(), labelled=few)
    >>> [len(run_images(recipe, split)) for split in ("train", "val", "test")]
    [50, 40, 10]
    """
    draw = recipe.labelled
    if draw.is_draw and split == "train":
        return _divide(recipe)[0]
    if draw.is_draw and split == "val" and draw.rest == "val":
        return _divide(recipe)[1]
    return image_set(recipe.data, split)


# --- the draw -------------------------------------------------------------------------------------------------------


def draw_labelled(labels: Integers, *, seed: int, share: float | None = None, per_class: int | None = None) -> Integers:
    """Draw which of the images with `labels` [N] keep their label, as rising places: `per_class` of each class, or the
    nearest number to `share` of them, but at least one. Those without a label (-1) are never drawn.

    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, -1])
    >>> draws = draw_labelled(labels, seed=0, share=0.5), draw_labelled(labels, seed=0, per_class=1)
    >>> [labels[draw].tolist() for draw in draws]
    [[0, 0, 1, 1], [0, 1]]
    """
    known = np.flatnonzero(labels >= 0)
    order = known[np.argsort(labels[known], kind="stable")]
    classes, starts = np.unique(labels[order], return_index=True)
    chosen = [np.zeros(0, np.int64)]
    for label, numbers in zip(classes.tolist(), np.split(order, starts[1:]), strict=False):
        num = per_class if per_class is not None else max(1, round((share or 0.0) * len(numbers)))
        # A stream for each class, of which the first so many are taken: so 10 labels of a class are among the 20 that a
        # larger draw takes, and no class changes another's draw.
        chosen.append(stream("labelled", seed, label).permutation(numbers)[:num])
    return np.sort(np.concatenate(chosen))


def read_list(images: ImageSet, file: Path) -> Integers:
    """Read which images a list names, by their path or by the name of their file, as rising places.

    Raises `DataError` with the line of a name that no image has, or several have, or that comes twice.
    """
    by_path = {images.path(index): index for index in range(len(images))}
    by_name: dict[str, list[str]] = {}
    for path in by_path:
        by_name.setdefault(PurePosixPath(path).name, []).append(path)
    found: dict[int, int] = {}
    for line, text in _lines(file):
        where, paths = f"'{file}', line {line}", [text] if text in by_path else by_name.get(text, [])
        if not paths:
            example = by_path and f", which has such as '{next(iter(by_path))}'"
            raise DataError(f"{where}: there is no image '{text}' in {images.name}{example}. Take the line out.")
        if len(paths) > 1:
            raise DataError(f"{where}: {len(paths)} images are called '{text}': write the path of one, {paths[0]}.")
        index = by_path[paths[0]]
        if index in found:
            raise DataError(f"{where}: '{text}' is in line {found[index]} already. Take one out.")
        if images.label(index) < 0:
            raise DataError(f"{where}: '{text}' has no label in {images.name}. Take it out.")
        found[index] = line
    if not found:
        raise DataError(f"`labelled.file` '{file}' names no images: write one on each line.")
    return np.sort(np.array(list(found), dtype=np.int64))


def _lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines of a list with their numbers, without empty ones; names of files may be no Unicode."""
    try:
        text = file.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise DataError(f"`labelled.file` '{file}' cannot be read: {error.strerror}.") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


# --- its images -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """The paths of the labelled images, in the order of the data set."""

    paths: Sequence[str]

    @property
    def text(self) -> bytes:
        return "".join(f"{path}\n" for path in self.paths).encode("utf-8", "surrogateescape")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def write(self, run: Path) -> None:
        """Write the list into a run's folder."""
        write_atomically(run / LIST, self.text)


class Subset(ImageSet):
    """The images at `indices` of `images`, as an `ImageSet`: a sample's index is its place in here.

    Without `has_labels` every label is -1, and neither a sample nor the set tells another. `draw` is the draw that made
    it; `details` add it to the set's own.
    """

    def __init__(self, images: ImageSet, indices: Integers, *, kind: str, draw: Draw, has_labels: bool = True) -> None:
        self.images, self.indices, self.draw, self.has_labels = images, indices, draw, has_labels
        self.name = f"{images.name} ({len(indices)} {kind})"
        self.classes, self.skipped = images.classes, images.skipped
        own = {"num_labelled": len(draw.paths), "labelled_sha256": draw.sha256}
        self.details = {**images.details, **own}

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`."""
        return self.images.image(int(self.indices[index]))

    def annotation(self, index: int) -> Annotation:
        """Read the boxes and the mask of sample `index`."""
        return self.images.annotation(int(self.indices[index]))

    def also(self, index: int) -> tuple[int, ...]:
        """Further classes that are as right as the label of sample `index`; none without labels."""
        return self.images.also(int(self.indices[index])) if self.has_labels else ()

    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image, -1 without labels."""
        return self.images.label(int(self.indices[index])) if self.has_labels else -1

    def path(self, index: int) -> str:
        """The path of sample `index` without reading its image."""
        return self.images.path(int(self.indices[index]))


def draw_of(images: ImageSet) -> Draw | None:
    """The draw that made `images`, None where they are all of a split."""
    return images.draw if isinstance(images, Subset) else None


def _divide(recipe: Recipe) -> tuple[Subset, Subset]:
    """Divide the training images into those with a label and the others, which keep theirs to be validated on."""
    images, options = image_set(recipe.data, "train"), recipe.labelled
    labels = np.array([images.label(index) for index in range(len(images))], dtype=np.int64)
    if options.file is not None:
        chosen = read_list(images, options.file)
    else:
        _check_enough(images, labels, options.per_class)
        seed = recipe.training.seed if options.seed is None else options.seed
        chosen = draw_labelled(labels, seed=seed, share=options.share, per_class=options.per_class)
    others = np.setdiff1d(np.arange(len(images)), chosen)
    if options.rest == "val":
        others = others[labels[others] >= 0]
    if options.rest != "unused" and not len(others):
        raise DataError(f"all {len(images)} images of {images.name} are labelled, none is left for `labelled.rest`.")
    draw = Draw([images.path(int(index)) for index in chosen])
    has_labels = options.rest == "val"
    return (
        Subset(images, chosen, kind="labelled", draw=draw),
        Subset(images, others, kind="others", draw=draw, has_labels=has_labels),
    )


def _check_enough(images: ImageSet, labels: Integers, per_class: int | None) -> None:
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    few = [
        f"'{images.classes[label]}' {count}"
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True)
        if per_class is not None and count < per_class
    ]
    if few:
        raise DataError(
            f"`labelled.per_class` {per_class} is more than {images.name} has of every class: {shortened(few)}. Draw "
            "fewer, or leave those classes out."
        )
