"""Three images of other classes beside each image of a batch, which methods with composites want (GCC, AAAI 2021).

Legend: N images, S side of one in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.data.views.pixels import as_float, concatenated
from contrex.data.views.view import View
from contrex.errors import ArgumentError

NUM_PARTNERS = 3


@dataclass(frozen=True, eq=False)
class Company:
    """The images of other classes beside N images, and where each image is among its three.

    `view` are those 3N images transformed, the three of one image in a row; `images` [3N,3,S,S] what it is made of on
    the device, None where the loader has made it. `cells` int64 [N] are numbers from 0 to 3.
    """

    images: Tensor | None
    view: View
    cells: Tensor

    @staticmethod
    def join(parts: Sequence[Company]) -> Company:
        """Join the company of several batches."""
        return Company(
            concatenated([part.images for part in parts]),
            View.join([part.view for part in parts]),
            torch.cat([part.cells for part in parts]),
        )

    def pin_memory(self) -> Company:
        """The company with its pixels and cells in page-locked memory."""
        images = None if self.images is None else self.images.pin_memory()
        return Company(images, self.view.pin_memory(), self.cells.pin_memory())

    def to(self, device: torch.device, *, channels_last: bool) -> Company:
        """The company on `device`, its view made."""
        images = None if self.images is None else as_float(self.images, device, channels_last)
        view = self.view.to(device, images, channels_last=channels_last)
        return Company(None, view, self.cells.to(device, non_blocking=True))

    def part(self, some: slice) -> Company:
        """The company of some of the N images."""
        start, stop, _ = some.indices(len(self.cells))
        own = slice(NUM_PARTNERS * start, NUM_PARTNERS * stop)
        images = None if self.images is None else self.images[own]
        return Company(images, self.view.part(own), self.cells[some])


class OtherClasses:
    """The images of a data set by class, from their `labels` [n]; those without a label (-1) are nobody's partners.

    >>> others = OtherClasses(np.array([0, 1, 1, 0, -1]))
    >>> sorted(set(others.draw(1, 20, np.random.default_rng(0)).tolist()))
    [0, 3]
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        # Sorted by class, so that a class is a stretch of the order: a draw is two numbers, whatever the number of
        # images.
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
