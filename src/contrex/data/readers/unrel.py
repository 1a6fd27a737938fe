"""UnRel, photos of unusual relations (a dog rides a bike; Peyre et al., ICCV 2017), for classifiers of ImageNet.

    PATH/images/1122.jpg                            PATH may also be the folder above `unrel-dataset`
    PATH/annotations.mat                            annotations {N,1}: filename, objects {M,1}: category, box [1,4]

CGC (CVPR 2022, section 4.1 and Table 3) judges classifiers of ImageNet on the 28 categories of UnRel that overlap with
ImageNet, by top-1 accuracy and by the share of the heatmap inside the category's boxes.

*Deviation*: neither paper nor code lists those 28, nor the classes they stand for. `unrel_classes.csv` is contrex' own
table: the 68 of the 100 category names (those of Visual Relationship Detection) that name classes of ImageNet or kinds
of them - any of 118 breeds is a dog - by what the names mean. Left out are names without a class (giraffe, person),
with classes that are something else (ImageNet's kite is a bird), or too wide (building). `categories` chooses among
them; numbers are comparable with each other, and with the paper's only roughly.

An image with a dog and a bike is two samples, `images/1.jpg:bike` and `images/1.jpg:dog`, each with its boxes; objects
of other categories give none. A sample's `label` is the first class of its category and `also` holds the others; the
classes are ImageNet's 1000. Boxes count pixels from 1 and their maxima are the last pixels inside: they begin at 1 and
end at the image's width and height. There is one split, `test`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from contrex.data.files.annotations import Box, edges
from contrex.data.files.folders import holds
from contrex.data.files.matlab import matlab_array, read_matlab
from contrex.data.readers.categories import Category, CategoryFiles
from contrex.data.readers.listed import archive_folder, check_files
from contrex.errors import DataError, unknown_name
from contrex.models.classes import imagenet_names
from contrex.settings import UnRel

SPLITS = ("test",)
ARCHIVE = "unrel-dataset"
ANNOTATIONS = "annotations.mat"
TABLE = "unrel_classes.csv"


class UnRelImages(CategoryFiles):
    """A `UnRel` as an `ImageSet`; see the module's docstring for layout, samples and classes.

    `categories` are those used, sorted; `details` has the SHA-256 of the table of their classes. Unreadable images: see
    `ImageFiles`.

    Raises `DataError` for another layout, missing images and damaged annotations, `UnknownNameError` for another split
    or for a category without classes.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, ANNOTATIONS, below=ARCHIVE)

    def __init__(self, settings: UnRel, split: str) -> None:
        if split not in SPLITS:
            raise unknown_name("`split` of UnRel", split, SPLITS)
        self.settings = settings
        root = archive_folder(settings.path, ARCHIVE, ["images", ANNOTATIONS], "UnRel")
        known = category_classes()
        for name in settings.categories:
            if name not in known:
                raise unknown_name("`categories` of UnRel, those with classes of ImageNet,", name, known)
        self.categories = sorted(settings.categories or known)
        self.classes: Sequence[str] = imagenet_names()
        self.details = {"categories": ", ".join(self.categories), "classes_sha256": _table_sha256()}
        found = list(_found(root / ANNOTATIONS, {name: known[name] for name in self.categories}))
        if settings.on_bad_image == "error":
            images = list(dict.fromkeys(one.file for one in found))
            check_files(root, images, "images", " Or leave them out: --data.on-bad-image skip.")
        super().__init__(
            root, split, found, limit_per_class=settings.limit_per_class, on_bad_image=settings.on_bad_image
        )


def category_classes() -> dict[str, tuple[int, ...]]:
    """The classes of ImageNet by category, the one that stands for it first.

    >>> category_classes()["pizza"], len(category_classes()["dog"])
    ((963,), 118)
    """
    classes: dict[str, tuple[int, ...]] = {}
    for row in csv.DictReader(_table().decode().splitlines()):
        classes[row["category"]] = (*classes.get(row["category"], ()), int(row["class_index"]))
    return classes


def _table() -> bytes:
    return (files("contrex.data") / TABLE).read_bytes()


def _table_sha256() -> str:
    return hashlib.sha256(_table()).hexdigest()


# --- annotations ----------------------------------------------------------------------------------------------------


def _found(file: Any, classes: Mapping[str, tuple[int, ...]]) -> Iterator[Category]:
    """The samples, in the order of the annotations and then of the categories."""
    for number, annotation in enumerate(matlab_array(file, read_matlab(file), "annotations"), start=1):
        try:
            image = str(_value(annotation["filename"]))
            boxes = _boxes(_members(annotation["objects"]), classes)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(f"'{file}', annotation {number}: {error}. Unpack it again.") from None
        for name in sorted(boxes):
            first, *others = classes[name]
            yield Category(f"images/{image}", name, first, boxes[name], tuple(others))


def _boxes(objects: Iterable[Any], classes: Mapping[str, object]) -> dict[str, list[Box]]:
    """The boxes of one image by category, for those in `classes`; names come with blanks or underscores."""
    boxes: dict[str, list[Box]] = {}
    for one in objects:
        name = str(_value(one["category"])).strip().replace("_", " ")
        if name in classes:
            numbers = np.asarray(_value(one["box"]), dtype=np.float64).ravel().tolist()
            boxes.setdefault(name, []).append(edges(numbers, first_pixel=1))
    return boxes


def _members(value: Any) -> Any:
    """The elements of a cell or struct array, which scipy gives as the element itself where there is one."""
    return np.atleast_1d(_value(value))


def _value(value: Any) -> Any:
    """What is inside arrays without axes, which scipy wraps around the fields of structs in cells."""
    while isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype == object:
        value = value.item()
    return value
