"""FGVC-Aircraft (2013b) as its archive unpacks: 10,000 photos of aircraft in a hierarchy of classes, one box each.

    PATH/data/images/1025794.jpg
    PATH/data/variants.txt, families.txt, manufacturers.txt     one class per line, in label order
    PATH/data/images_variant_trainval.txt                       number class, and so for train, val, test and levels
    PATH/data/images_box.txt                                    number xmin ymin xmax ymax

PATH may also be the folder above `fgvc-aircraft-2013b`. The corners of a box are its first and last pixels, the
image's first being (1, 1) as the archive's README says; a sample's boxes are edges. A few corners are 0: they are taken
for the image's edge.

The lowest 20 pixels of every photo are a banner with its copyright. The README asks to remove them for training and
evaluation; torchvision keeps them, and so does the default here. Boxes end above a removed banner.

Splits: with `train_on` "trainval", `train` is the published trainval and `val` is the test split: what is chosen by
validation is then chosen on the test images. With "train", `train` and `val` are the published ones. The usual
report is the test accuracy after training on trainval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data.files.folders import holds
from contrex.data.files.images import SWAPPED, read_header
from contrex.data.files.tables import EDGES, read_classes, read_spaced
from contrex.data.readers.listed import Boxes, Labelled, ListedImages, archive_folder, check_split, pixel_box
from contrex.data.sample import Annotation
from contrex.errors import DataError
from contrex.settings import FGVCAircraft

NAME = "FGVC-Aircraft"
ARCHIVE = "fgvc-aircraft-2013b"
BANNER = 20
"""Height of the copyright banner in pixels."""

LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}


class FGVCAircraftImages(ListedImages):
    """One split of an `FGVCAircraft` as an `ImageSet`; see the module's docstring for layout, boxes and splits.

    `classes` are the names of the level, `paths` the samples (`data/images/file`) in listed order.

    Raises `DataError` for another layout and for lists that do not agree, `UnknownNameError` for an unknown split.
    """

    settings: FGVCAircraft

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, "data/images_box.txt", below=ARCHIVE)

    def __init__(self, settings: FGVCAircraft, split: str) -> None:
        part = _published(settings, split)
        classes, listed = LEVELS[settings.level], f"images_{settings.level}_{part}.txt"
        needed = [f"data/{name}" for name in (classes, listed, "images_box.txt", "images")]
        root = archive_folder(settings.path, ARCHIVE, needed, NAME)
        self.classes: Sequence[str] = [name for name, _ in read_classes(root / "data" / classes)]
        found = _labelled(root / "data" / listed, self.classes, classes)
        boxes = _boxes(root / "data" / "images_box.txt")
        _check_boxes(root / "data" / "images_box.txt", found, boxes)
        name = {"trainval": "train"}.get(part, part)
        super().__init__(settings, root, name, found, boxes=boxes)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`, without the banner where that is asked for."""
        image = super().image(index)
        return image.crop((0, 0, image.width, image.height - self._banner(image.height)))

    def annotation(self, index: int) -> Annotation:
        """Read the box of sample `index`, without what of it lies on a banner that is removed."""
        found = super().annotation(index)
        if not self.settings.remove_banner or not len(found.boxes):
            return found
        stored = read_header(self._file(self.paths[index]))
        # The banner is at the bottom of the upright picture, and boxes are upright here.
        height = stored.width if stored.orientation in SWAPPED else stored.height
        return Annotation(_cut_off(found.boxes, height - self._banner(height)))

    def _banner(self, height: int) -> int:
        """How many of the lowest pixels of a picture are removed; images no taller than the banner stay as they are."""
        return BANNER if self.settings.remove_banner and height > BANNER else 0


def _published(settings: FGVCAircraft, split: str) -> str:
    """The part of the published images that is read as `split`."""
    check_split(split, NAME)
    return {"train": "trainval", "val": "test"}.get(split, split) if settings.train_on == "trainval" else split


def _labelled(file: Path, classes: Sequence[str], listed_in: str) -> Labelled:
    labels = {name: label for label, name in enumerate(classes)}
    found: dict[str, int] = {}
    for line, (number, name) in read_spaced(file, ("number", "class")):
        path = f"data/images/{number}.jpg"
        if name not in labels:
            raise DataError(f"'{file}', line {line}: the class '{name}' is not in {listed_in}")
        if path in found:
            raise DataError(f"'{file}', line {line}: a second row for '{number}'")
        found[path] = labels[name]
    if not found:
        raise DataError(f"'{file}' lists no images. Unpack the archive again.")
    return list(found.items())


def _boxes(file: Path) -> Boxes:
    rows = read_spaced(file, ("number", *EDGES))
    return {f"data/images/{number}.jpg": pixel_box(file, line, corners) for line, (number, *corners) in rows}


def _check_boxes(file: Path, found: Labelled, boxes: Boxes) -> None:
    missing = [path for path, _ in found if path not in boxes]
    if missing:
        raise DataError(f"'{file}' has no box for {len(missing)} of {len(found)} images, such as '{missing[0]}'.")


def _cut_off(boxes: NDArray[np.float32], height: int) -> NDArray[np.float32]:
    """Boxes without what is below `height`, and without those that are below it altogether."""
    boxes = boxes.copy()
    boxes[:, 3] = boxes[:, 3].clip(max=height)
    return boxes[boxes[:, 3] > boxes[:, 1]]
