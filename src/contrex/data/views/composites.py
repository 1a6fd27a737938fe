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
        """One batch of several."""
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
