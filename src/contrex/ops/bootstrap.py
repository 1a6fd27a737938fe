"""What images vary by: resampled means, the bootstrap behind every interval (Efron and Tibshirani 1993, section 13.3),
and the sign test of paired differences. No torch.

Legend: S rows of values (seeds, or one), n images, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

DRAWS_AT_ONCE = 2**20
"""Drawn images held in memory at once: bounds memory to about 16 MB for any n below that."""


def resampled_means(rows: Values, num_resamples: int, generator: np.random.Generator) -> Values:
    """The mean of each row over n images drawn with replacement, R times, `[R,S]`; every row has the same draws."""
    num_images = rows.shape[1]
    means = np.empty((num_resamples, len(rows)))
    at_once = max(1, DRAWS_AT_ONCE // num_images)
    for first in range(0, num_resamples, at_once):
        shape = (min(at_once, num_resamples - first), num_images)
        drawn = generator.integers(num_images, size=shape, dtype=np.int32)
        for column, row in enumerate(rows):
            means[first : first + at_once, column] = row[drawn].mean(axis=1)
    return means


@dataclass(frozen=True)
class SignTest:
    """How many images have a difference above, below and of exactly zero, and the two-sided p value."""

    num_above: int
    num_below: int
    num_ties: int
    p_value: float


def sign_test(differences: Values) -> SignTest:
    """Whether paired differences `[n]` lean to one side: the exact two-sided sign test, ties dropped.

    `p = min(1, 2 P(X <= min(above, below)))` with X binomial over the `above + below` images and probability 1/2:
    how probable as lopsided a split is where neither side is favoured. 1 when every image is a tie. It asks how many
    images differ and not by how much, so it is valid for any distribution, also with outliers (Conover, "Practical
    Nonparametric Statistics", section 3.4); of differences of right and wrong answers it is McNemar's exact test. NaN
    differences, of images without a value, are left out.

    >>> sign_test(np.array([1.0, 2.0, 0.5, 3.0, 0.0]))
    SignTest(num_above=4, num_below=0, num_ties=1, p_value=0.125)
    """
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return SignTest(above, below, int((differences == 0).sum()), binomial_p_value(min(above, below), above + below))


def binomial_p_value(fewer: int, total: int) -> float:
    """The two-sided p value of `fewer` heads among `total` tosses of a coin.

    `min(1, 2 sum_{i <= fewer} C(total, i) / 2^total)` is summed in logarithms, so that no power overflows."""
    steps = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((total - steps + 1) / steps))]) - total * math.log(2)
    # Taken out before `exp` and put back behind the sum, which then neither overflows nor vanishes.
    largest = float(logs.max())
    return min(1.0, 2 * math.exp(largest) * float(np.exp(logs - largest).sum()))
