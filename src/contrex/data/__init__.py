"""Pictures with labels, boxes and masks: the built-in digits, image folders on disk, CIFAR and Tiny-ImageNet.

`image_set(settings, split)` gives the reader of a data set's dataclass. All of them are an `ImageSet` (`sample.py`):
a sequence of `Sample`s with named classes. Adding a reader is one dataclass in `settings.py`, one file here and one
line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contrex.data.cifar import CifarImages
from contrex.data.digits import DigitImages
from contrex.data.folder import FolderImages
from contrex.data.images import read_image
from contrex.data.sample import ImageSet, Sample
from contrex.data.tiny_imagenet import TinyImageNetImages
from contrex.errors import ArgumentError
from contrex.settings import Cifar, Data, Digits, Folder, TinyImageNet

__all__ = [
    "READERS",
    "CifarImages",
    "DigitImages",
    "FolderImages",
    "ImageSet",
    "Sample",
    "TinyImageNetImages",
    "image_set",
    "read_image",
]

READERS: dict[type, Callable[[Any, Any], ImageSet]] = {
    Digits: DigitImages,
    Folder: FolderImages,
    Cifar: CifarImages,
    TinyImageNet: TinyImageNetImages,
}
"""The reader of each dataclass of settings."""


def image_set(settings: Data, split: str) -> ImageSet:
    """The images of one split, read as `settings` describe.

    Raises `ArgumentError` for settings without a reader, and the readers' own errors for an unknown split.

    >>> len(image_set(Digits(num_val=20), "val"))
    20
    """
    if type(settings) not in READERS:
        known = ", ".join(kind.__name__ for kind in READERS)
        raise ArgumentError(f"`settings` must be one of {known}; got {type(settings).__name__}")
    return READERS[type(settings)](settings, split)
