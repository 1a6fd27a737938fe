"""The interval and the sign test of a difference between two methods measured on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contrex.ops.bootstrap import SignTest, Values, resampled_means, sign_test
from contrex.report.numbers import Estimate


def paired_difference(values: Values, baseline: Values, *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of `values` minus mean of `baseline`, with the 95 % percentile bootstrap interval.

    Both are [S,n]: S seeds (not necessarily as many on both sides) over the same n images. A resample draws the images
    once for both sides, so what makes an image hard for both cancels; with several seeds it also draws seeds, each side
    on its own, so the interval covers another training run too (with few seeds it is somewhat too narrow, as any
    bootstrap of few values).
    """
    value = float(values.mean() - baseline.mean())
    if values.shape[1] < 2:
        return Estimate(value)
    generator = np.random.default_rng(seed)
    means = resampled_means(np.concatenate([values, baseline]), num_resamples, generator)
    split = len(values)
    differences = _seed_means(means[:, :split], generator) - _seed_means(means[:, split:], generator)
    low, high = np.quantile(differences, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def episode_difference(episodes: Sequence[Values], *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean over episodes of the mean of `values` minus that of `baseline`, with the 95 % percentile bootstrap interval.

    An episode is [2,n]: both on the same images, after training on the same draw. A resample draws episodes, and images
    in each of them, once for both sides, so what makes a draw or an image hard for both cancels.
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
    """The sign test of the differences per episode; each is [2,n]."""
    sides = [episode.mean(axis=1)[:, None] for episode in episodes]
    values, baseline = np.concatenate(sides, axis=1)
    return paired_signs(values[None], baseline[None])


def paired_signs(values: Values, baseline: Values) -> SignTest:
    """The sign test of the differences per image, each the mean over the seeds of its side. Both are [S,n].

    Differences below a billionth of the values are rounding, and count as ties.
    """
    differences = values.mean(axis=0) - baseline.mean(axis=0)
    scale = np.maximum(np.abs(values).max(initial=0.0), np.abs(baseline).max(initial=0.0))
    return sign_test(np.where(np.abs(differences) <= 1e-9 * scale, 0.0, differences))


def _seed_means(means: Values, generator: np.random.Generator) -> Values:
    """[R]: the mean over seeds drawn with replacement."""
    num_resamples, num_seeds = means.shape
    drawn = generator.integers(num_seeds, size=(num_resamples, num_seeds))
    averaged: Values = np.take_along_axis(means, drawn, axis=1).mean(axis=1)
    return averaged
