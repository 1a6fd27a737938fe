"""Pictures with labels, boxes and masks: the built-in digits, image folders on disk, and data sets as published.

`image_set(settings, split)` gives the reader of a data set's dataclass. All of them are an `ImageSet` (`sample.py`):
a sequence of images with labels and names of classes, and what is known about each. A data set is one dataclass, which
names its reader, and that reader: in `settings/data.py` and a file here, or both in a file of one's own.
"""

from __future__ import annotations

from typing import Any

from contrex.data.files.folders import ImageFiles, image_names
from contrex.data.files.images import read_image
from contrex.data.sample import Annotation, ImageSet, Sample
from contrex.errors import ArgumentError
from contrex.outside import outside
from contrex.settings import DATA_PREFIXES, Data
from contrex.settings.family import implementation_of

_READERS = {kind.implementation.rpartition(":")[2]: kind.implementation for kind in DATA_PREFIXES.values()}
"""contrex's own readers by the names of their classes. Each is imported when it is asked for: some load slowly."""

__all__ = ["Annotation", "ImageFiles", "ImageSet", "Sample", "image_names", "image_set", "read_image", "reader"]
__all__.extend(_READERS)


def __getattr__(name: str) -> Any:
    if name in _READERS:
        return outside(_READERS[name], "the reader")
    if name == "READERS":
        return {kind: reader(kind) for kind in DATA_PREFIXES.values()}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def reader(kind: type[Data]) -> type[ImageSet]:
    """The reader that the settings of `kind` name, `kind.implementation`.

    Raises `ArgumentError` where they name none, or something else.
    """
    return implementation_of(kind, ImageSet, "contrex.data.ImageSet")  # type: ignore[type-abstract]


def image_set(settings: Data, split: str) -> ImageSet:
    """The images of one split, read as `settings` describe.

    Raises `ArgumentError` for settings without a reader, and the readers' own errors for an unknown split.

    >>> from contrex.settings import Digits
    >>> len(image_set(Digits(num_val=20), "val"))
    20
    """
    if not isinstance(settings, Data):
        raise ArgumentError(f"`settings` must derive from contrex.settings.Data; got {type(settings).__name__}.")
    make: Any = reader(type(settings))
    images: ImageSet = make(settings, split)
    return images
