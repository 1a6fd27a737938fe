"""A data set in the groups of images that are judged together, and which of them are this process' own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from contrex import ranks
from contrex.data.loading import Loader
from contrex.data.views.evaluation import EvaluationViews, Views
from contrex.evaluation import consistency

GROUP = consistency.BATCH
"""Images judged together."""


class Groups:
    """This process' share of the groups of `size` images, those at `indices`. The last group may be smaller.

    The shares follow each other in the order of the processes. Joined, their values are in the order of the images and
    add up to the same number, bit for bit, as in one process. The loader's workers stay between two rounds.
    """

    def __init__(self, views: EvaluationViews, indices: Sequence[int], *, workers: int, size: int = GROUP) -> None:
        self.total = len(indices)
        self.has_labels = views.images.has_labels
        self._size, self._indices = size, indices
        self._loader: Loader[list[Views]] = Loader(views, list, workers=workers)

    def __iter__(self) -> Iterator[list[Views]]:
        total, size = self.total, self._size
        positions = [list(self._indices[start : start + size]) for start in range(0, total, size)]
        first, last = (
            math.ceil(len(positions) * number / ranks.world_size()) for number in (ranks.rank(), ranks.rank() + 1)
        )
        return self._loader.read(positions[first:last])

    def close(self) -> None:
        """End the loader's workers."""
        self._loader.close()
