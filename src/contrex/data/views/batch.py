"""A training batch: images with their labels, and sets of transformed images beside them.

Legend: N images, S side of the square in pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contrex.data.views.composites import Composite
from contrex.data.views.photometric import Look
from contrex.data.views.pixels import as_float, concatenated, transformed
from contrex.errors import ArgumentError
from contrex.ops.geometry import Crop


@dataclass(frozen=True, eq=False)
class View:
    """A set of transformed images: `crop`, then `look` (None changes no colours), applied to N plain ones.

    `pixels` [N,3,S,S] are uint8 until the batch is on the device; None until they are made there.
    """

    pixels: Tensor | None
    crop: Crop
    look: Look | None = None

    @staticmethod
    def join(parts: Sequence[View]) -> View:
        """Join several sets of views to one."""
        looks = [part.look for part in parts if part.look is not None]
        crop = Crop.stack([part.crop for part in parts])
        return View(concatenated([part.pixels for part in parts]), crop, Look.stack(looks) if looks else None)

    def made(self) -> Tensor:
        """The pixels of a view that is on its device.

        Raises:
            ArgumentError: it is not there yet.
        """
        if self.pixels is None:
            raise ArgumentError("`batch` has no views yet: call `batch.to(device)` first.")
        return self.pixels

    def pin_memory(self) -> View:
        """The view with its pixels in page-locked memory."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())

    def to(self, images: Tensor, *, channels_last: bool) -> View:
        """The view on the device of the plain `images`, made of them where the loader has not made it."""
        if self.pixels is None:
            return replace(self, pixels=transformed(images, self.crop, self.look))
        return replace(self, pixels=as_float(self.pixels, images.device, channels_last))

    def part(self, some: slice) -> View:
        """The view of some of its images."""
        return View(
            None if self.pixels is None else self.pixels[some],
            self.crop[some],
            None if self.look is None else self.look[some],
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """N images with their labels and as many sets of transformed images, `views`, as were asked for.

    `images` [N,3,S,S] are the plain ones, uint8 until `to` has put them on the device. `indices` int64 [N] are the
    images' places in their `ImageSet`, or None where they have none. Crops and looks stay on the CPU. `composite` is
    the images among others, for methods that want it; `unlabelled` are images without labels (-1) beside them, any
    number, where there are some (`contrex.data.views.unlabelled`).
    """

    images: Tensor
    labels: Tensor
    paths: Sequence[str]
    views: tuple[View, ...]
    indices: Tensor | None = None
    composite: Composite | None = None
    unlabelled: Batch | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def join(parts: Sequence[Batch]) -> Batch:
        """Join several batches to one, which have nothing beside them."""
        composites = [part.composite for part in parts if part.composite is not None]
        return Batch(
            images=torch.cat([part.images for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            paths=list(itertools.chain.from_iterable(part.paths for part in parts)),
            views=tuple(View.join(same) for same in zip(*(part.views for part in parts), strict=True)),
            indices=concatenated([part.indices for part in parts]),
            composite=Composite.join(composites) if composites else None,
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for the loader's `pin_memory`; crops and looks stay where they are."""
        names = ("images", "labels", "indices", "composite", "unlabelled")
        pinned = {name: value.pin_memory() for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **pinned, views=tuple(view.pin_memory() for view in self.views))

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """The batch on `device`, pixel values in [0, 1], views made on the device where the loader has not."""
        images = as_float(self.images, device, channels_last)
        views = tuple(view.to(images, channels_last=channels_last) for view in self.views)
        return replace(
            self,
            images=images,
            labels=self.labels.to(device, non_blocking=True),
            views=views,
            indices=None if self.indices is None else self.indices.to(device, non_blocking=True),
            composite=None if self.composite is None else self.composite.to(views[0].made(), channels_last),
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
            composite=None if self.composite is None else self.composite.part(some),
        )
