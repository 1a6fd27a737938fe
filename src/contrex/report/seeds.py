"""One curve for several seeds of a method: their mean, with the standard deviation as its band."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from contrex.report.plot import Point

Pairs = Sequence[tuple[float, float]]


def finite(points: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    """The points whose values are finite."""
    return [(x, y) for x, y in points if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]


def mean_over_seeds(curves: Sequence[Pairs]) -> list[Point]:
    """The mean over seeds, and the mean -+ one standard deviation, at each x that all seeds have.

    Empty if the seeds share less than half of the places.

    >>> mean_over_seeds([[(1.0, 2.0), (2.0, 5.0)], [(1.0, 4.0)]])
    [(1.0, 3.0, 1.5857864376269049, 4.414213562373095)]
    """
    tables = [dict(curve) for curve in curves]
    shared = [x for x in tables[0] if all(x in table for table in tables)]
    if 2 * len(shared) < max(map(len, tables)):
        return []
    points = []
    for x in shared:
        values = [table[x] for table in tables]
        mean = statistics.fmean(values)
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        points.append((x, mean, mean - deviation, mean + deviation))
    return points


def mean_deviation(curves: Sequence[Pairs]) -> float:
    """The standard deviation over seeds, averaged over the places that all seeds have.

    NaN for fewer than two seeds, or if there is no such place.

    >>> round(mean_deviation([[(1.0, 2.0), (2.0, 5.0)], [(1.0, 4.0), (2.0, 5.0)]]), 3)
    0.707
    """
    deviations = [high - mean for _, mean, _, high in mean_over_seeds(curves)] if len(curves) > 1 else []
    return statistics.fmean(deviations) if deviations else math.nan
