"""The difference between two methods on the same images, with its interval and its sign test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contrex.ops.bootstrap import SignTest, Values, resampled_means, sign_test
from contrex.report.numbers import Estimate


def paired_difference(values: Values, baseline: Values, *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean of `values` minus that of `baseline`, with its 95 % percentile bootstrap interval.

    Both are [S,n]: S seeds, which may be more on one side, over the same n images. A resample draws the same images for
    both sides, so what makes an image hard for both cancels. With several seeds it also draws seeds, on each side by
    itself, so the interval covers another training run too. With few seeds it is somewhat too narrow, as any bootstrap
    of few values.
    """
    value = float(values.mean() - baseline.mean())
    if values.shape[1] < 2:
        return Estimate(value)
    generator = np.random.default_rng(seed)
    # Both sides as rows of one array, which have the same draws of images.
    means = resampled_means(np.concatenate([values, baseline]), num_resamples, generator)
    split = len(values)
    differences = _seed_means(means[:, :split], generator) - _seed_means(means[:, split:], generator)
    low, high = np.quantile(differences, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def episode_difference(episodes: Sequence[Values], *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """The difference of two methods, averaged over episodes, with its 95 % percentile bootstrap interval.

    An episode is [2,n]: the values of the method and of the baseline on the same images, after training on the same
    draw. A resample draws episodes, and images in each of them, for both at once, so what makes a draw or an image hard
    for both cancels.
    """
    differences = [values - baseline for values, baseline in episodes]
    value = float(np.mean([one.mean() for one in differences]))
    if len(episodes) < 2:
        return Estimate(value)
    generator = np.random.default_rng(seed)
    means = np.concatenate([resampled_means(one[None], num_resamples, generator) for one in differences], axis=1)
    low, high = np.quantile(_seed_means(means, generator), [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def episode_signs(episodes: Sequence[Values]) -> SignTest:
    """The sign test of the differences of episodes, each [2,n]."""
    sides = [episode.mean(axis=1)[:, None] for episode in episodes]
    values, baseline = np.concatenate(sides, axis=1)
    return paired_signs(values[None], baseline[None])


def paired_signs(values: Values, baseline: Values) -> SignTest:
    """The sign test of the differences on single images. Both sides are [S,n], and averaged over their seeds.

    Differences below a billionth of the values are rounding errors, and count as ties.
    """
    differences = values.mean(axis=0) - baseline.mean(axis=0)
    scale = np.maximum(np.abs(values).max(initial=0.0), np.abs(baseline).max(initial=0.0))
    return sign_test(np.where(np.abs(differences) <= 1e-9 * scale, 0.0, differences))


def _seed_means(means: Values, generator: np.random.Generator) -> Values:
    """The mean of each resample over seeds that are drawn with replacement: [R]."""
    num_resamples, num_seeds = means.shape
    drawn = generator.integers(num_seeds, size=(num_resamples, num_seeds))
    averaged: Values = np.take_along_axis(means, drawn, axis=1).mean(axis=1)
    return averaged
