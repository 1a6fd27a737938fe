"""Oxford Flowers-102 as its files are published: 8,189 photos of 102 species, some with segmentations, no boxes.

    PATH/jpg/image_00001.jpg
    PATH/imagelabels.mat                        `labels`: the class of each image, from 1 on
    PATH/setid.mat                              `trnid`, `valid`, `tstid`: the numbers of 1020, 1020 and 6149 images
    PATH/segmim/segmim_00001.jpg                an archive of its own: the image with its background painted blue
    PATH/classes.txt                            optional, not published: one name per line in class order

PATH may also be the folder above `flowers-102`. No names are published: without classes.txt, classes are numbered.

Segmentations are JPEGs, so the blue is not exact: pixels within `BLUE_RANGE` of (0, 0, 255) in every channel are
background, the others the mask.

Splits, of the published train, val and test images: with `train_on` "trainval", `train` is train and val, and `val` is
the test split: what is chosen by validation is then chosen on the test images. With "train", `train`, `val` and `test`
are as published. With "test", `train` is the published test split, `val` the published one, and `test` the published
train split. Papers differ and do not always say which; their accuracies differ by several points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.folders import holds
from contrex.data.files.images import Header
from contrex.data.files.masks import read_segmentation, upright_mask
from contrex.data.files.matlab import matlab_array, read_matlab
from contrex.data.files.tables import numbered_classes, read_classes
from contrex.data.readers.listed import Labelled, ListedImages, archive_folder, check_split
from contrex.errors import DataError
from contrex.settings import Flowers102

NAME = "Flowers-102"
ARCHIVE = "flowers-102"
BLUE_RANGE = 64
"""How far each channel of a background pixel may be from (0, 0, 255)."""

PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "trainval": {"train": ("trnid", "valid"), "val": ("tstid",), "test": ("tstid",)},
    "train": {"train": ("trnid",), "val": ("valid",), "test": ("tstid",)},
    "test": {"train": ("tstid",), "val": ("valid",), "test": ("trnid",)},
}
"""The variables of setid.mat that make up each split, for each `train_on`."""


class Flowers102Images(ListedImages):
    """One split of a `Flowers102` as an `ImageSet`; see the module's docstring for layout, masks and splits.

    `paths` are the samples (`jpg/file`) in the order of setid.mat. A sample's mask is None where segmim/ has none.

    Raises `DataError` for another layout and damaged or disagreeing files, `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, "setid.mat", below=ARCHIVE)

    def __init__(self, settings: Flowers102, split: str) -> None:
        check_split(split, NAME)
        root = archive_folder(settings.path, ARCHIVE, ("jpg", "imagelabels.mat", "setid.mat"), NAME)
        numbered = _labels(root / "imagelabels.mat")
        self.classes: Sequence[str] = _classes(root / "classes.txt", max(numbered))
        found = _labelled(root / "setid.mat", numbered, PARTS[settings.train_on][split])
        name = "test" if split == "val" and settings.train_on == "trainval" else split
        super().__init__(settings, root, name, found, boxes={})

    def _mask(self, path: str) -> Callable[[Header], NDArray[np.bool_]] | None:
        file = self.root / path.replace("jpg/image_", "segmim/segmim_")
        if not file.is_file():
            return None
        return lambda stored: upright_mask(flower_mask(read_segmentation(file, path, stored)), stored)


def flower_mask(segmentation: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The mask of the flower: where a segmentation [H,W,3] is not blue.

    >>> flower_mask(np.array([[[3, 0, 252], [70, 60, 200], [250, 250, 255]]], dtype=np.uint8))
    array([[False,  True,  True]])
    """
    distance = np.abs(segmentation.astype(np.int64) - (0, 0, 255)).max(axis=-1)
    return np.asarray(distance > BLUE_RANGE)


def _labels(file: Path) -> list[int]:
    """The class from 1 on of each image, in order."""
    return _integers(file, read_matlab(file), "labels")


def _labelled(file: Path, numbered: Sequence[int], names: Sequence[str]) -> Labelled:
    """Paths and labels of the images that the variables `names` of setid.mat list."""
    variables = read_matlab(file)
    numbers = [number for name in names for number in _integers(file, variables, name)]
    strays = [number for number in numbers if number > len(numbered)]
    if strays:
        raise DataError(
            f"'{file}' lists image {strays[0]}, and imagelabels.mat has labels for {len(numbered)}. Unpack both again."
        )
    if len(set(numbers)) < len(numbers):
        raise DataError(f"'{file}' lists some images of {' and '.join(names)} more than once. Unpack it again.")
    return [(f"jpg/image_{number:05d}.jpg", numbered[number - 1] - 1) for number in numbers]


def _integers(file: Path, variables: dict[str, Any], name: str) -> list[int]:
    """Positive whole numbers."""
    values = np.asarray(matlab_array(file, variables, name))
    if values.ndim != 1 or values.dtype.kind not in "uif" or not np.all((values >= 1) & (values % 1 == 0)):
        raise DataError(f"'{file}': `{name}` must hold whole numbers from 1 on. Unpack it again.")
    return [int(value) for value in values]


def _classes(file: Path, num_classes: int) -> list[str]:
    if not file.exists():
        return numbered_classes(num_classes, f"'{file.parent / 'imagelabels.mat'}'", first=1)
    names = [name for _, name in read_classes(file)]
    if len(names) != num_classes:
        raise DataError(f"'{file}' has {len(names)} names, imagelabels.mat has {num_classes} classes. Name each once.")
    return names
