"""One labelled picture, whatever it was read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NO_BOXES = np.zeros((0, 4), dtype=np.float32)


@dataclass(frozen=True)
class Sample:
    """An image with what is known about it.

    `image` is RGB. `label` is the class index, -1 when unknown. `boxes` is float32 [M,4], `xmin, ymin, xmax, ymax` as
    edges in pixels of `image` (a box over the whole image is `0, 0, W, H`); M = 0 when there are none. `mask` is
    boolean [H,W], True on the object, or None. `path` names the sample in records and messages. `also` are further
    classes that are as right as `label`: a set whose categories are wider than the classifier's classes has them (any
    breed is a dog).
    """

    image: Image.Image
    label: int
    boxes: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    path: str
    index: int
    also: tuple[int, ...] = ()


class ImageSet(Protocol):
    """A split of a data set: a sequence of samples with named classes. Reading is stateless, so any number of workers
    may share one."""

    name: str
    classes: Sequence[str]
    skipped: Sequence[str]
    """What was left out because it could not be read: a sentence each, with the path and the reason."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image."""
        ...

    def path(self, index: int) -> str:
        """The path of sample `index` without reading its image."""
        ...
