"""Expected calibration error, one bin and one image at a time."""

from __future__ import annotations

import math


def bin_of(confidence, num_bins):
    """The bin m with `m / M < confidence <= (m + 1) / M`."""
    for m in range(num_bins):
        if m / num_bins < confidence <= (m + 1) / num_bins:
            return m
    return 0


def diagram(confidence, correct, num_bins):
    """For each bin `(count, mean confidence, accuracy)`, NaN where it is empty."""
    rows = []
    for m in range(num_bins):
        inside = [(p, ok) for p, ok in zip(confidence, correct, strict=True) if bin_of(p, num_bins) == m]
        n = len(inside)
        means = [sum(column) / n if n else math.nan for column in zip(*inside, strict=True)] or [math.nan, math.nan]
        rows.append((n, *means))
    return rows


def error(confidence, correct, num_bins):
    """Guo et al. (2017), eq. 3."""
    rows = diagram(confidence, correct, num_bins)
    return sum(n / len(confidence) * abs(accuracy - mean) for n, mean, accuracy in rows if n)
