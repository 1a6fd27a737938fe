"""CIFAR-10 and CIFAR-100: 32 x 32 photos in memory, read as they are published or from two npz files.

    PATH/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch, batches.meta
    PATH/cifar-100-python/train, test, meta        its 100 fine classes

    PATH/train.npz, PATH/test.npz                  x uint8 [N,32,32,3], y [N] the class of each
    PATH/classes.txt                               optional: one name per line in index order

The published files are Python pickles: torchvision reads them, after it has found the MD5 of each to be the published
one. The npz files are read without pickle. Without classes.txt, ten classes have the names of CIFAR-10 and any other
number is numbered.

Splits: `train`, `val` and `test`. With `val_share` = 0.2, `val` is a fifth of each class's training images, drawn by
`val_seed`, and `train` the rest: for choosing settings. With 0, `train` is everything and `val` is the test split, so
that whatever is chosen by validation - the best checkpoint - is chosen on the images it is then measured on, as in
ExCon's final runs; report the last checkpoint to avoid it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data.files.folders import holds
from contrex.data.files.tables import numbered_classes, read_classes
from contrex.data.sample import ImageSet
from contrex.data.streams import stream
from contrex.errors import DataError, unknown_name
from contrex.settings import Cifar

SIDE = 32
SPLITS = ("train", "val", "test")
ARCHIVES = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}
"""The published folders, and torchvision's classes for them."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], Sequence[str]]
"""Images [N,32,32,3], labels [N], names of the classes."""


class CifarImages(ImageSet):
    """One split of a `Cifar` as an `ImageSet`, in memory; see the module's docstring for layouts and splits.

    `images` uint8 [N,32,32,3], `labels` int64 [N]. A sample's path is where it is stored, `train/00017` or `test/...`,
    whichever split it belongs to. `name` says `test` where that is what `val` is.

    Raises `DataError` for missing, damaged or unexpected files, `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether `path` is or holds a published folder, or holds npz files."""
        return path.name in ARCHIVES or holds(path, *ARCHIVES, "train.npz", "test.npz")

    def __init__(self, settings: Cifar, split: str) -> None:
        if split not in SPLITS:
            raise unknown_name("`split` of CIFAR", split, SPLITS)
        if split == "val" and settings.val_share == 0:
            split = "test"
        self.settings = settings
        self._stored = "test" if split == "test" else "train"
        folder = _folder(settings.path)
        read = _published if folder.name in ARCHIVES else _unpacked
        images, labels, self.classes = read(folder, self._stored)
        self.name = f"{folder.name}/{split}"
        self._numbers = _chosen(labels, split, settings)
        self.images, self.labels = images[self._numbers], labels[self._numbers]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """The RGB pixels of sample `index`."""
        return Image.fromarray(self.images[index])

    def label(self, index: int) -> int:
        """The label of sample `index`."""
        return int(self.labels[index])

    def path(self, index: int) -> str:
        """The path of sample `index`."""
        return f"{self._stored}/{self._numbers[index]:05d}"


# --- which images ---------------------------------------------------------------------------------------------------


def _chosen(labels: NDArray[np.int64], split: str, settings: Cifar) -> NDArray[np.int64]:
    """The stored numbers of a split's images, rising."""
    parts = [np.zeros(0, np.int64)]
    for label in np.unique(labels).tolist():
        numbers = np.flatnonzero(labels == label)
        if split != "test" and settings.val_share:
            numbers = _part(numbers, label, split, settings)
        parts.append(numbers[: settings.limit_per_class])
    return np.sort(np.concatenate(parts))


def _part(numbers: NDArray[np.int64], label: int, split: str, settings: Cifar) -> NDArray[np.int64]:
    """The training images of a class that are in `train`, or those in `val`."""
    num_val = round(settings.val_share * len(numbers))
    if not 0 < num_val < len(numbers):
        raise DataError(
            f"`val_share` {settings.val_share} of the {len(numbers)} training images of class {label} is {num_val}: "
            f"each split needs one or more of every class."
        )
    # A stream for each class: no setting of the other classes changes which images of this one are held back.
    drawn = stream("cifar val", settings.val_seed, label).permutation(numbers)
    return np.sort(drawn[:num_val] if split == "val" else drawn[num_val:])


# --- which files ----------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Path:
    """The folder that holds the files, of the layouts in or at `path`."""
    if not path.is_dir():
        raise DataError(f"`path` must be a folder with CIFAR-10 or CIFAR-100; there is no folder '{path}'")
    if path.name in ARCHIVES:
        return path
    found = [path / name for name in ARCHIVES if (path / name).is_dir()]
    if any(_file(path, stored).exists() for stored in ("train", "test")):
        found.append(path)
    if not found:
        raise DataError(f"'{path}' has none of {', '.join(f'{name}/' for name in ARCHIVES)}, train.npz and test.npz.")
    if len(found) > 1:
        raise DataError(f"'{path}' has several data sets: name one as `path`, as in '{found[0]}', or move the others.")
    return found[0]


def _published(folder: Path, stored: str) -> Arrays:
    from torchvision import datasets  # loads slowly

    kind = getattr(datasets, ARCHIVES[folder.name])
    try:
        data = kind(folder.parent, train=stored == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{_damage(folder, kind) or error} Unpack {kind.filename} from {kind.url} again.") from error
    return data.data, np.array(data.targets, dtype=np.int64), tuple(data.classes)


def _damage(folder: Path, kind: Any) -> str:
    """What is wrong with the published files; empty where nothing is."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]:
        file = folder / name
        if not file.is_file():
            return f"'{folder}' has no file '{name}'."
        if not check_integrity(file, md5):
            return f"'{file}' is not the published file: its MD5 must be {md5}."
    return ""


def _file(folder: Path, stored: str) -> Path:
    return folder / f"{stored}.npz"


def _unpacked(folder: Path, stored: str) -> Arrays:
    """Read npz files. The classes are those of both, so that the splits agree on them."""
    file = _file(folder, stored)
    if not file.is_file():
        raise DataError(f"'{folder}' has no '{file.name}' with x uint8 [N,{SIDE},{SIDE},3] and y [N].")
    labels = {name: _labels(_file(folder, name)) for name in ("train", "test") if _file(folder, name).is_file()}
    names = _class_names(folder, max(int(found.max(initial=-1)) for found in labels.values()) + 1)
    images = _array(file, "x")
    if images.dtype != np.uint8 or images.shape != (len(labels[stored]), SIDE, SIDE, 3):
        raise DataError(
            f"'{file}': x must be uint8 [{len(labels[stored])},{SIDE},{SIDE},3], an image for each label; got "
            f"{images.dtype} {list(images.shape)}"
        )
    return images, labels[stored], names


def _labels(file: Path) -> NDArray[np.int64]:
    labels = _array(file, "y")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise DataError(f"'{file}': y must be class indices [N], from 0 on; got {labels.dtype} {list(labels.shape)}")
    if labels.max(initial=0) >= 2**31:
        raise DataError(
            f"'{file}': y must be class indices [N]; got {labels.max()}, too large to be one. Renumber them."
        )
    return labels.astype(np.int64)


def _array(file: Path, name: str) -> NDArray[Any]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[name]
            return array
    except KeyError:
        raise DataError(f"'{file}' has no array {name}; it needs x, the images, and y, their classes") from None
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"'{file}' is not a readable npz file: {error}") from error


def _class_names(folder: Path, num_classes: int) -> Sequence[str]:
    file = folder / "classes.txt"
    if not file.is_file():
        if num_classes == len(CIFAR10_CLASSES):
            return CIFAR10_CLASSES
        return tuple(numbered_classes(num_classes, f"'{folder}'"))
    names = tuple(name for _, name in read_classes(file))
    if len(names) < num_classes:
        raise DataError(f"'{file}' names {len(names)} classes, but there are labels up to {num_classes - 1}")
    return names
