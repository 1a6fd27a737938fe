"""One labelled picture, whatever it was read from, and the sequences of them that readers give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.outside import FromAnywhere

NO_BOXES = np.zeros((0, 4), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known about an image beside its label.

    `boxes` is float32 [M,4], `xmin, ymin, xmax, ymax` as edges in pixels of the image (a box over the whole image is
    `0, 0, W, H`); M = 0 when there are none. `mask` is boolean [H,W], True on the object, or None.
    """

    boxes: NDArray[np.float32] = field(default_factory=lambda: NO_BOXES)
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Sample:
    """An image with all that is known about it.

    `image` is RGB. `label` is the class index, -1 when unknown. `boxes` and `mask` are those of its `Annotation`.
    `path` names the sample in records and messages. `also` are further classes that are as right as `label`: a set
    whose categories are wider than the classifier's classes has them (any breed is a dog).
    """

    image: Image.Image
    label: int
    boxes: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    path: str
    index: int
    also: tuple[int, ...] = ()


class ImageSet(FromAnywhere, ABC):
    """A split of a data set: a sequence of samples with named classes.

    An image is not its annotation: training reads `image` and `label` alone, so an `annotation` costs nothing until
    somebody asks for it. Reading is stateless, so any number of workers may share a set. Readers set `name` and
    `classes` and implement what is abstract here; the rest has defaults.
    """

    name: str
    classes: Sequence[str]
    """Their names in the order of the labels; none where there are no labels."""
    has_labels: bool = True
    """Whether its images have labels at all; otherwise each is -1."""
    skipped: Sequence[str] = ()
    """The images that were left out because they could not be read: a sentence each, with the path and the reason."""
    details: Mapping[str, object] = {}
    """Facts about the set that its records keep."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`."""

    @abstractmethod
    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image, -1 when unknown."""

    @abstractmethod
    def path(self, index: int) -> str:
        """The path of sample `index` without reading its image."""

    def annotation(self, index: int) -> Annotation:
        """Read the boxes and the mask of sample `index`, in pixels of its image."""
        return Annotation()

    def also(self, index: int) -> tuple[int, ...]:
        """Further classes that are as right as the label of sample `index`."""
        return ()

    def left_out(self, indices: Iterable[int]) -> Mapping[str, int]:
        """How many boxes the reader leaves out, by the reason; those of samples are counted at `indices`."""
        return {}

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether the folder `path` looks like a data set of this reader, of the kind `prefix` where it has several."""
        return False

    def __getitem__(self, index: int) -> Sample:
        # Negative numbers count from the end; one outside is an IndexError here, and not a reader's own error.
        index = range(len(self))[index]
        image, annotation = self.image(index), self.annotation(index)
        return Sample(
            image, self.label(index), annotation.boxes, annotation.mask, self.path(index), index, self.also(index)
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
