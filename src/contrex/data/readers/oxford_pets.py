"""Oxford-IIIT Pet as its two archives unpack: 7,349 photos of 37 breeds of cats and dogs, with trimaps.

    PATH/images/Abyssinian_100.jpg
    PATH/annotations/trainval.txt, test.txt     name class species breed, from 1 on
    PATH/annotations/trimaps/Abyssinian_100.png 1 object, 2 background, 3 border
    PATH/annotations/xmls/Abyssinian_100.xml    PASCAL VOC: the head's box, for most of trainval and none of test

PATH may also be the folder above `oxford-iiit-pet`. Breeds are named after their photos: american_bulldog_12 is of
"american bulldog".

Masks: with `border` "object", the border - a few pixels along the outline, and fur - belongs to the animal, as for
`Folder`: a heatmap's mass on the outline is then not counted as background, and the box around the mask is the one
around the animal. With "background", only what is surely animal is in the mask.

Boxes: around the mask ("body"), or the published ones of heads; images without one then have none. The corners of a
head's box are its first and last pixels, the image's first being 1, as PASCAL VOC counts; a sample's boxes are edges.

Splits: see `TrainTest`, of which trainval is the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.annotations import read_objects
from contrex.data.files.folders import holds
from contrex.data.files.images import Header
from contrex.data.files.masks import mask_box, trimap_mask
from contrex.data.files.tables import parse_integer, read_spaced
from contrex.data.readers.listed import (
    Boxes,
    Labelled,
    ListedImages,
    archive_folder,
    check_files,
    part_of_training,
    published_part,
)
from contrex.data.sample import Annotation
from contrex.errors import DataError
from contrex.settings import OxfordPets

NAME = "Oxford-IIIT Pet"
ARCHIVE = "oxford-iiit-pet"
COLUMNS = ("name", "class", "species", "breed")


class OxfordPetsImages(ListedImages):
    """One split of an `OxfordPets` as an `ImageSet`; see the module's docstring for layout, masks and boxes.

    `classes` are the breeds, `paths` the samples (`images/file`) in listed order.

    Raises `DataError` for another layout and for lists that do not agree, `UnknownNameError` for an unknown split.
    """

    settings: OxfordPets

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, "annotations/trimaps", below=ARCHIVE)

    def __init__(self, settings: OxfordPets, split: str) -> None:
        part = published_part(settings, split, NAME)
        head = ["annotations/xmls"] if settings.boxes == "head" else []
        needed = ["images", "annotations/trainval.txt", "annotations/test.txt", "annotations/trimaps", *head]
        root = archive_folder(settings.path, ARCHIVE, needed, NAME)
        lists = {name: _rows(root / "annotations" / f"{name}.txt") for name in ("trainval", "test")}
        self.classes: Sequence[str] = _breeds(root / "annotations", lists["trainval"] | lists["test"])
        names = lists["test" if part == "test" else "trainval"]
        found = part_of_training([(f"images/{name}.jpg", number - 1) for name, number in names.items()], settings, part)
        check_files(root, [_trimap(path) for path, _ in found], "trimaps")
        super().__init__(settings, root, part, found, boxes=_heads(root, found) if head else {})

    def annotation(self, index: int) -> Annotation:
        """Read the mask of sample `index`, and the box of the head or around the mask."""
        found = super().annotation(index)
        if self.settings.boxes == "head" or found.mask is None:
            return found
        return Annotation(mask_box(found.mask), found.mask)

    def _mask(self, path: str) -> Callable[[Header], NDArray[np.bool_]] | None:
        border = self.settings.border == "object"
        return lambda stored: trimap_mask(self.root / _trimap(path), path, stored, border=border)


def _trimap(path: str) -> str:
    return path.replace("images/", "annotations/trimaps/", 1).removesuffix(".jpg") + ".png"


def _rows(file: Path) -> dict[str, int]:
    """Read the class, from 1 on, of each image by its name."""
    rows: dict[str, int] = {}
    for line, (name, number, *_) in read_spaced(file, COLUMNS):
        if name in rows:
            raise DataError(f"'{file}', line {line}: a second row for '{name}'")
        rows[name] = parse_integer(file, line, number)
    if not rows:
        raise DataError(f"'{file}' lists no images. Unpack the archive again.")
    return rows


def _breeds(folder: Path, rows: dict[str, int]) -> list[str]:
    """The name of each class, which all its photos must have in common."""
    breeds: dict[int, str] = {}
    for name, number in rows.items():
        breed = name.rpartition("_")[0].replace("_", " ") or name
        if breeds.setdefault(number, breed) != breed:
            raise DataError(f"'{folder}': class {number} has photos of '{breeds[number]}' and of '{breed}'.")
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise DataError(f"'{folder}': the lists have the classes {sorted(breeds)}; expected 1..{len(breeds)}.")
    return [breeds[number] for number in sorted(breeds)]


def _heads(root: Path, found: Labelled) -> Boxes:
    """The boxes of heads by image path; images without a file have none."""
    files = {path: root / "annotations" / "xmls" / f"{Path(path).stem}.xml" for path, _ in found}
    return {path: _head(file) for path, file in files.items() if file.is_file()}


def _head(file: Path) -> NDArray[np.float32]:
    boxes = [found.box for found in read_objects(file, first_pixel=1)]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)
