"""Pictures with labels, boxes and masks: the built-in digits, image folders on disk, and data sets as published.

`image_set(settings, split)` gives the reader of a data set's dataclass. All of them are an `ImageSet` (`sample.py`):
a sequence of `Sample`s with named classes. Adding a reader is one dataclass in `settings/data.py`, one file here and
one line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contrex.data.files.images import read_image
from contrex.data.readers.aircraft import FGVCAircraftImages
from contrex.data.readers.cars import StanfordCarsImages
from contrex.data.readers.cifar import CifarImages
from contrex.data.readers.cub import CUB200Images
from contrex.data.readers.detection import DetectionImages
from contrex.data.readers.digits import DigitImages
from contrex.data.readers.flowers import Flowers102Images
from contrex.data.readers.folder import FolderImages
from contrex.data.readers.food import Food101Images
from contrex.data.readers.hugging_face import HuggingFaceImages
from contrex.data.readers.imagenet import ImageNetImages
from contrex.data.readers.oxford_pets import OxfordPetsImages
from contrex.data.readers.shards import ShardImages
from contrex.data.readers.tiny_imagenet import TinyImageNetImages
from contrex.data.readers.unrel import UnRelImages
from contrex.data.sample import ImageSet, Sample
from contrex.errors import ArgumentError
from contrex.settings import (
    CUB200,
    Cifar,
    Data,
    Detection,
    Digits,
    FGVCAircraft,
    Flowers102,
    Folder,
    Food101,
    HuggingFace,
    ImageNet,
    OxfordPets,
    Shards,
    StanfordCars,
    TinyImageNet,
    UnRel,
)

__all__ = [
    "READERS",
    "CUB200Images",
    "CifarImages",
    "DetectionImages",
    "DigitImages",
    "FGVCAircraftImages",
    "Flowers102Images",
    "FolderImages",
    "Food101Images",
    "HuggingFaceImages",
    "ImageNetImages",
    "ImageSet",
    "OxfordPetsImages",
    "Sample",
    "ShardImages",
    "StanfordCarsImages",
    "TinyImageNetImages",
    "UnRelImages",
    "image_set",
    "read_image",
]

READERS: dict[type, Callable[[Any, Any], ImageSet]] = {
    Digits: DigitImages,
    Folder: FolderImages,
    Cifar: CifarImages,
    TinyImageNet: TinyImageNetImages,
    CUB200: CUB200Images,
    FGVCAircraft: FGVCAircraftImages,
    StanfordCars: StanfordCarsImages,
    Flowers102: Flowers102Images,
    Food101: Food101Images,
    OxfordPets: OxfordPetsImages,
    ImageNet: ImageNetImages,
    UnRel: UnRelImages,
    Detection: DetectionImages,
    HuggingFace: HuggingFaceImages,
    Shards: ShardImages,
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
