"""Which images without labels a step has beside its labelled ones (CGC, section 4.3).

A run's unlabelled images come over and over, in passes. Step `number` of the run (from 0) has batch `number % n` of
pass `number // n`, for n complete batches in a pass; an epoch is one pass over the labelled images. Order and crops are
functions of (seed, pass, index), of a seed of their own, so they do not depend on the labelled images, and a run
resumed anywhere goes on where it was. The published code starts a new pass with each epoch, so that a pass longer than
an epoch never ends; and its unlabelled images are all of the training set, the labelled ones among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contrex.data.views.training import Position, TrainingViews, num_batches


@dataclass(frozen=True, eq=False)
class Cycle:
    """Images without labels that come over and over: `batch_size` of `views` a step; a process reads `parts` of it."""

    views: TrainingViews
    batch_size: int
    parts: Sequence[slice] = (slice(None),)

    def positions(self, first: int, last: int) -> Iterator[list[Position]]:
        """The positions (pass, index) in each part of the steps `first`, ..., `last - 1` of the run."""
        size, per_pass = self.batch_size, num_batches(self.views.images, self.batch_size)
        for number in range(first, last):
            # From the number of the step alone: a run resumed here sees the images that an unbroken one would.
            passed, place = divmod(number, per_pass)
            if number == first or place == 0:
                order = self.views.order(passed)
            batch = [(passed, index) for index in order[place * size : (place + 1) * size]]
            yield from (batch[part] for part in self.parts)
