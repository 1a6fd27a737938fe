"""Data sets by name: `cub:PATH` names the kind, a plain path is looked at.

    digits                                          the built-in set, which has no path
    folder: cifar: tiny-imagenet: imagenet: cub: aircraft: cars: flowers: food: pets: unrel: voc: coco: hf: shards:

Looking at a folder reads a few names, never an image or a table: what its archive unpacks to tells them apart. Options
beyond the path keep their defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from contrex.data.files.folders import image_names, subfolders
from contrex.data.readers.cifar import ARCHIVES as CIFAR_ARCHIVES
from contrex.data.readers.detection import coco_files, voc_folders
from contrex.errors import ArgumentError, DataError, unknown_name
from contrex.settings import DATA_PREFIXES, Data, Detection, Digits

WNID = re.compile(r"n\d{8}")
TABLES = ("boxes.csv", "labels.csv", "classes.txt")
"""What only image folders have beside them."""

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""How a path on Windows begins, which is no prefix."""


def data_named(text: str) -> Data:
    """The settings of the data set that `PREFIX:PATH`, `digits` or a plain path names.

    Raises `UnknownNameError` for an unknown prefix, `ArgumentError` for one without its path, and `DataError` for a
    folder that does not look like any data set.

    >>> data_named("cub:birds/CUB_200_2011").path.as_posix()
    'birds/CUB_200_2011'
    """
    if text == "digits":
        return Digits()
    prefix, colon, path = text.partition(":")
    if not colon or DRIVE.match(text) or (prefix not in DATA_PREFIXES and Path(text).exists()):
        return detected(Path(text))
    if prefix not in DATA_PREFIXES:
        raise unknown_name("the kind of data in PREFIX:PATH", prefix, DATA_PREFIXES)
    if prefix == "digits":
        raise ArgumentError(f"the built-in digits have no path, got {text!r}: name them `digits`.")
    if not path:
        raise ArgumentError(f"{text!r} needs a path behind it: {prefix}:PATH")
    return _settings(prefix, Path(path))


def detected(path: Path) -> Data:
    """The settings of the data set whose layout the folder `path` has.

    Raises `DataError` where there is no folder, or none of the layouts.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder '{path}'. Name a data set as PATH or PREFIX:PATH.")
    for prefix, has in LAYOUTS.items():
        if has(path):
            return _settings(prefix, path)
    looked_for = "; ".join(f"{prefix} ({mark})" for prefix, mark in MARKS.items())
    raise DataError(
        f"'{path}' does not look like a data set. Looked for: {looked_for}. Unpack its archive there, name the folder "
        f"that holds it, or say what it is: PREFIX:PATH."
    )


def _settings(prefix: str, path: Path) -> Data:
    if prefix in ("voc", "coco"):
        return Detection(path, layout="voc" if prefix == "voc" else "coco")
    settings: Data = DATA_PREFIXES[prefix](path)  # type: ignore[arg-type]  # digits, which have none, never come here
    return settings


# --- layouts --------------------------------------------------------------------------------------------------------


def _holds(*alternatives: str, folder: str = "") -> Callable[[Path], bool]:
    """Whether any of `alternatives` is in a path, or in `folder` below it."""
    names = [*alternatives, *(f"{folder}/{name}" for name in alternatives if folder)]
    return lambda path: any((path / name).exists() for name in names)


def _is_imagenet(path: Path) -> bool:
    """Kaggle's archive, or class folders that are WordNet's and have no tables beside them, as image folders have."""
    if any((path / name).is_dir() for name in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")):
        return True
    if any((path / name).exists() for name in TABLES):
        return False
    named = [subfolders(path / split) for split in ("train", "val") if (path / split).is_dir()]
    return any(named) and all(WNID.fullmatch(name) for names in named for name in names)


def _is_folder(path: Path) -> bool:
    """Whether any class folder of any split holds an image; looks at few of them."""
    splits = [path / name for name in subfolders(path)]
    return any(image_names(split / name) for split in splits for name in subfolders(split)[:3])


MARKS = {
    "tiny-imagenet": "wnids.txt and words.txt",
    "cub": "image_class_labels.txt",
    "aircraft": "data/images_box.txt",
    "cars": "devkit/cars_meta.mat or cars_annos.mat",
    "flowers": "setid.mat",
    "food": "meta/classes.txt",
    "pets": "annotations/trimaps/",
    "unrel": "annotations.mat and images/",
    "voc": "JPEGImages/ and Annotations/",
    "coco": "annotations/instances_*.json",
    "cifar": f"{', '.join(CIFAR_ARCHIVES)}, train.npz or test.npz",
    "hf": "dataset_dict.json or state.json",
    "shards": "SPLIT-*.tar",
    "imagenet": "ILSVRC/Data/CLS-LOC/, or train/ and val/ with class folders such as n01440764",
    "folder": "SPLIT/CLASS/*.jpg",
}
"""What each layout is known by, in words."""

LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "tiny-imagenet": lambda path: (path / "wnids.txt").exists() and (path / "words.txt").exists(),
    "cub": _holds("image_class_labels.txt", folder="CUB_200_2011"),
    "aircraft": _holds("data/images_box.txt", folder="fgvc-aircraft-2013b"),
    "cars": _holds("devkit/cars_meta.mat", "cars_annos.mat", folder="stanford_cars"),
    "flowers": _holds("setid.mat", folder="flowers-102"),
    "food": _holds("meta/classes.txt", folder="food-101"),
    "pets": _holds("annotations/trimaps", folder="oxford-iiit-pet"),
    "unrel": _holds("annotations.mat", folder="unrel-dataset"),
    "voc": lambda path: bool(voc_folders(path)),
    "coco": lambda path: bool(coco_files(path)),
    "cifar": lambda path: path.name in CIFAR_ARCHIVES or _holds(*CIFAR_ARCHIVES, "train.npz", "test.npz")(path),
    "hf": _holds("dataset_dict.json", "state.json"),
    "shards": lambda path: any(path.glob("*-*.tar")),
    "imagenet": _is_imagenet,
    "folder": _is_folder,
}
"""Whether a folder has a layout, tried in this order: the last ones would take in others."""
