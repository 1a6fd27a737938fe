"""CUB-200-2011 as its archive unpacks: 11,788 photos of 200 species of birds, one box each.

    PATH/images.txt                                number path, below images/
    PATH/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    PATH/image_class_labels.txt                    number class, from 1 on
    PATH/train_test_split.txt                      number 1 (training) or 0 (test)
    PATH/bounding_boxes.txt                        number x y width height, in pixels
    PATH/classes.txt                               class 001.Black_footed_Albatross
    PATH/segmentations/001.../...0046_18.png       an archive of its own, also beside PATH: grey, the share of five
                                                   annotators who marked the pixel; a mask is what most of them marked

PATH may also be the folder above `CUB_200_2011`. Parts and attributes are not read. A box spans x to x + width, as
written. Splits: see `TrainTest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.folders import holds, shortened
from contrex.data.files.images import Header
from contrex.data.files.masks import read_segmentation, upright_mask
from contrex.data.files.tables import parse_number
from contrex.data.readers.listed import (
    Boxes,
    ListedImages,
    archive_folder,
    check_files,
    parse_label,
    part_of_training,
    published_part,
    read_numbered,
)
from contrex.errors import DataError
from contrex.settings import CUB200

NAME = "CUB-200-2011"
ARCHIVE = "CUB_200_2011"
IMAGES, LABELS, SPLIT, BOXES, CLASSES = (
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "bounding_boxes.txt",
    "classes.txt",
)
Rows = dict[int, tuple[int, str]]


class CUB200Images(ListedImages):
    """One split of a `CUB200` as an `ImageSet`; see the module's docstring for the layout.

    `classes` are the species without their numbers, `paths` the samples (`images/folder/file`) in the order of
    images.txt. Masks are those of `segmentations`, None where it is not unpacked.

    Raises `DataError` for another layout and for tables that do not agree, `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, LABELS, below=ARCHIVE)

    def __init__(self, settings: CUB200, split: str) -> None:
        part = published_part(settings, split, NAME)
        needed = (IMAGES, LABELS, SPLIT, BOXES, CLASSES, "images")
        root = archive_folder(settings.path, ARCHIVE, needed, NAME)
        tables = {
            name: read_numbered(root / name, name.removesuffix(".txt")) for name in (IMAGES, LABELS, SPLIT, BOXES)
        }
        _check_numbers(root, tables)
        self.classes: Sequence[str] = _classes(root / CLASSES)
        numbers = _part(root / SPLIT, tables[SPLIT], training=part != "test")
        found = [_labelled(root / LABELS, tables, number, len(self.classes)) for number in numbers]
        found = part_of_training(found, settings, part)
        places = [root / "segmentations", root.parent / "segmentations"]
        self._segmentations = next((place for place in places if place.is_dir()), None)
        if self._segmentations:
            check_files(self._segmentations, [_segmentation(path) for path, _ in found], "segmentations")
        super().__init__(settings, root, part, found, boxes=_boxes(root / BOXES, tables, numbers))

    def _mask(self, path: str) -> Callable[[Header], NDArray[np.bool_]] | None:
        if self._segmentations is None:
            return None
        file = self._segmentations / _segmentation(path)
        return lambda stored: upright_mask(read_segmentation(file, path, stored)[..., 0] > 127, stored)


def _segmentation(path: str) -> str:
    """The path of the segmentation of an image, below the folder of segmentations."""
    return str(PurePosixPath(path).relative_to("images").with_suffix(".png"))


def _check_numbers(root: Path, tables: dict[str, Rows]) -> None:
    """Refuse tables that are not all about the same images."""
    listed = tables[IMAGES]
    for name, rows in tables.items():
        different = sorted(rows.keys() ^ listed.keys())
        if different:
            raise DataError(
                f"'{root / name}' has {len(rows)} rows and {IMAGES} has {len(listed)}: only one of them has image "
                f"{shortened([str(number) for number in different])}. Unpack the archive again."
            )


def _classes(file: Path) -> list[str]:
    rows = read_numbered(file, "class")
    if sorted(rows) != list(range(1, len(rows) + 1)):
        raise DataError(f"'{file}': the class numbers must be 1..{len(rows)}, each once. Unpack the archive again.")
    return [rows[number][1].partition(".")[2].replace("_", " ") or rows[number][1] for number in sorted(rows)]


def _part(file: Path, rows: Rows, *, training: bool) -> list[int]:
    """The numbers of the training or of the test images, rising."""
    for line, text in rows.values():
        if text not in ("0", "1"):
            raise DataError(f"'{file}', line {line}: expected 1 (training) or 0 (test), got {text!r}")
    return sorted(number for number, (_, text) in rows.items() if (text == "1") == training)


def _labelled(file: Path, tables: dict[str, Rows], number: int, num_classes: int) -> tuple[str, int]:
    line, text = tables[LABELS][number]
    return f"images/{tables[IMAGES][number][1]}", parse_label(file, line, text, num_classes)


def _boxes(file: Path, tables: dict[str, Rows], numbers: Sequence[int]) -> Boxes:
    boxes: Boxes = {}
    for number in numbers:
        line, text = tables[BOXES][number]
        texts = text.split()
        if len(texts) != 4:
            raise DataError(f"'{file}', line {line}: expected number x y width height, got {text!r} after the number")
        x, y, width, height = (
            parse_number(file, line, name, part)
            for name, part in zip(("x", "y", "width", "height"), texts, strict=True)
        )
        if min(width, height) <= 0:
            raise DataError(f"'{file}', line {line}: the box {text} is empty; width and height must be positive")
        path = f"images/{tables[IMAGES][number][1]}"
        boxes[path] = np.array([[x, y, x + width, y + height]], dtype=np.float32)
    return boxes
