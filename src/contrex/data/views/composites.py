"""Composites: an image among three images of other classes, in a grid of two by two cells (GCC, AAAI 2021).

    cells   0 1
            2 3

Legend: N images, S side of one in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.data.views.photometric import Look
from contrex.data.views.pixels import as_float, transformed
from contrex.errors import ArgumentError
from contrex.ops.geometry import Crop

NUM_CELLS = 4
NUM_PARTNERS = NUM_CELLS - 1


@dataclass(frozen=True, eq=False)
class Partners:
    """The images of other classes beside N images: `images` [3N,3,S,S], those of one image in a row. `crop` and `look`
    (3N each) are still to be applied to them; where `crop` is None, they are transformed already."""

    images: Tensor
    crop: Crop | None = None
    look: Look | None = None

    @staticmethod
    def join(parts: Sequence[Partners]) -> Partners:
        """Join the partners of several batches."""
        crops = [part.crop for part in parts if part.crop is not None]
        looks = [part.look for part in parts if part.look is not None]
        return Partners(
            images=torch.cat([part.images for part in parts]),
            crop=Crop.stack(crops) if crops else None,
            look=Look.stack(looks) if looks else None,
        )

    def pin_memory(self) -> Partners:
        """The images in page-locked memory; crops and looks stay where they are."""
        return replace(self, images=self.images.pin_memory())

    def to(self, device: torch.device, channels_last: bool) -> Tensor:
        """Their pixels in [0, 1] on `device`, transformed."""
        images = as_float(self.images, device, channels_last)
        return images if self.crop is None else transformed(images, self.crop, self.look)

    def part(self, some: slice) -> Partners:
        """The partners of some of the N images."""
        start, stop, _ = some.indices(len(self.images) // NUM_PARTNERS)
        own = slice(NUM_PARTNERS * start, NUM_PARTNERS * stop)
        return Partners(
            self.images[own],
            None if self.crop is None else self.crop[own],
            None if self.look is None else self.look[own],
        )


@dataclass(frozen=True, eq=False)
class Composite:
    """The first view of each of N images among three images of other classes: what GCC wants beside it.

    `cells` int64 [N] say where the view is. `pixels` [N,3,2S,2S] are made on the device, of the view and of the
    `partners`, which are gone then.
    """

    pixels: Tensor | None
    cells: Tensor
    partners: Partners | None

    @staticmethod
    def join(parts: Sequence[Composite]) -> Composite:
        """Join several composites that are not made yet."""
        partners = [part.partners for part in parts if part.partners is not None]
        return Composite(None, torch.cat([part.cells for part in parts]), Partners.join(partners))

    def pin_memory(self) -> Composite:
        """The composite with what it is made of in page-locked memory."""
        partners = None if self.partners is None else self.partners.pin_memory()
        return replace(self, cells=self.cells.pin_memory(), partners=partners)

    def to(self, views: Tensor, channels_last: bool) -> Composite:
        """The composite made of the first `views` [N,3,S,S], which are on the device."""
        cells = self.cells.to(views.device, non_blocking=True)
        if self.partners is None:
            return replace(self, cells=cells)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        made = composites(views, self.partners.to(views.device, channels_last), cells)
        return Composite(made.contiguous(memory_format=layout), cells, None)

    def part(self, some: slice) -> Composite:
        """The composite of some of the N images."""
        return Composite(
            None if self.pixels is None else self.pixels[some],
            self.cells[some],
            None if self.partners is None else self.partners.part(some),
        )


class OtherClasses:
    """The images of a data set by class, from their `labels` [n]; those without a label (-1) are nobody's partners.

    >>> others = OtherClasses(np.array([0, 1, 1, 0, -1]))
    >>> sorted(set(others.draw(1, 20, np.random.default_rng(0)).tolist()))
    [0, 3]
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        known = np.flatnonzero(labels >= 0)
        self._order = known[np.argsort(labels[known], kind="stable")]
        self._classes, self._starts, self._counts = np.unique(
            labels[self._order], return_index=True, return_counts=True
        )
        if len(self._classes) < 2:
            raise ArgumentError(
                f"composites need images of at least two classes, `data` has {len(self._classes)}: train GCC on more."
            )

    def draw(self, label: int, num: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Indices `[num]` of images of other classes than `label`.

        Each is drawn for itself, first its class and then one of its images, all equally likely, as in the published
        code: classes, and images of a small class, may come twice.
        """
        chosen = generator.choice(np.flatnonzero(self._classes != label), num)
        drawn: NDArray[np.int64] = self._order[self._starts[chosen] + generator.integers(self._counts[chosen])]
        return drawn


def composites(views: Tensor, partners: Tensor, cells: Tensor) -> Tensor:
    """The composites `[N,3,2S,2S]` of `views` [N,3,S,S], each in its cell, and `partners` [3N,3,S,S] in the others.

    `cells` int64 [N] are numbers from 0 to 3. Partners fill the free cells in their order. Pixels are only moved.

    >>> views, partners = torch.ones(1, 1, 1, 1), torch.tensor([2.0, 3, 4]).view(3, 1, 1, 1)
    >>> composites(views, partners, torch.tensor([2]))[0, 0]
    tensor([[2., 3.],
            [1., 4.]])
    """
    num, channels, height, width = views.shape
    if partners.shape != (NUM_PARTNERS * num, channels, height, width):
        expected = [NUM_PARTNERS * num, channels, height, width]
        raise ArgumentError(f"`partners` must be three images of the views' size for each view, {expected}; got "
                            f"{list(partners.shape)}.")  # fmt: skip
    tiles = torch.cat([views[:, None], partners.view(num, NUM_PARTNERS, channels, height, width)], 1)
    place = torch.arange(NUM_CELLS, device=cells.device)
    source = torch.where(place == cells[:, None], 0, place + (place < cells[:, None]))
    grid = tiles[torch.arange(num, device=views.device)[:, None], source]
    grid = grid.view(num, 2, 2, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(num, channels, 2 * height, 2 * width)
