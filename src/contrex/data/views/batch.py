"""A training batch: images with their labels, and sets of transformed images beside them.

Legend: N images, S side of the square in pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.data.views.company import Company
from contrex.data.views.pixels import as_float, concatenated
from contrex.data.views.view import View


@dataclass(frozen=True, eq=False)
class Batch:
    """N images with their labels and as many sets of transformed images, `views`, as were asked for.

    `images` [N,3,S,S] are the plain ones, uint8 until `to` has put them on the device. `indices` int64 [N] are the
    images' places in their `ImageSet`, or None where they have none. Crops and looks stay on the CPU. `company` are
    images of other classes, for methods that want composites; `unlabelled` are images without labels (-1) beside them,
    any number, where there are some (`contrex.data.views.unlabelled`). `boxes` are those of the objects in each plain
    image, float32 [M,4] in its pixels, for methods that want them.
    """

    images: Tensor
    labels: Tensor
    paths: Sequence[str]
    views: tuple[View, ...]
    indices: Tensor | None = None
    company: Company | None = None
    unlabelled: Batch | None = None
    boxes: Sequence[NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def join(parts: Sequence[Batch]) -> Batch:
        """Join several batches to one, which have nothing beside them."""
        companies = [part.company for part in parts if part.company is not None]
        return Batch(
            images=torch.cat([part.images for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            paths=list(itertools.chain.from_iterable(part.paths for part in parts)),
            views=tuple(View.join(same) for same in zip(*(part.views for part in parts), strict=True)),
            indices=concatenated([part.indices for part in parts]),
            company=Company.join(companies) if companies else None,
            boxes=None if parts[0].boxes is None else [boxes for part in parts for boxes in part.boxes or ()],
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for the loader's `pin_memory`; crops and looks stay where they are."""
        names = ("images", "labels", "indices", "company", "unlabelled")
        pinned = {name: value.pin_memory() for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **pinned, views=tuple(view.pin_memory() for view in self.views))

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """The batch on `device`, pixel values in [0, 1], views made on the device where the loader has not."""
        images = as_float(self.images, device, channels_last)
        return replace(
            self,
            images=images,
            labels=self.labels.to(device, non_blocking=True),
            views=tuple(view.to(device, images, channels_last=channels_last) for view in self.views),
            indices=None if self.indices is None else self.indices.to(device, non_blocking=True),
            company=None if self.company is None else self.company.to(device, channels_last=channels_last),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device, channels_last=channels_last),
        )

    def part(self, some: slice) -> Batch:
        """Some of the labelled images, with the same ones without labels beside them."""
        return replace(
            self,
            images=self.images[some],
            labels=self.labels[some],
            paths=self.paths[some],
            views=tuple(view.part(some) for view in self.views),
            indices=None if self.indices is None else self.indices[some],
            company=None if self.company is None else self.company.part(some),
            boxes=None if self.boxes is None else self.boxes[some],
        )
