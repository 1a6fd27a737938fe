"""Resampled means: the bootstrap behind every interval (Efron and Tibshirani 1993, section 13.3). No torch.

Legend: S rows of values (seeds, or one), n images, R resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

DRAWS_AT_ONCE = 2**20
"""Drawn images held in memory at once: bounds memory to about 16 MB for any n below that."""


def resampled_means(rows: Values, num_resamples: int, generator: np.random.Generator) -> Values:
    """`[R,S]`: the mean of each row over n images drawn with replacement, the same draw for every row."""
    num_images = rows.shape[1]
    means = np.empty((num_resamples, len(rows)))
    at_once = max(1, DRAWS_AT_ONCE // num_images)
    for first in range(0, num_resamples, at_once):
        shape = (min(at_once, num_resamples - first), num_images)
        drawn = generator.integers(num_images, size=shape, dtype=np.int32)
        for column, row in enumerate(rows):
            means[first : first + at_once, column] = row[drawn].mean(axis=1)
    return means
