"""The mean of a curve over images, with an interval at each point.

Axes: N images, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import bootstrap_interval
from contrex.metrics.rows import Rows

Point = tuple[float, float, float, float]
"""x, the mean there, and the ends of its 95 % interval."""


class CurveMean:
    """Keeps the curve [P] of every image; NaN marks a point that an image does not have, and is left out of its mean.

    As with `PerSampleMetric`, several processes give what one gives for all images.

    >>> import torch
    >>> mean = CurveMean()
    >>> mean.update(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    >>> mean.points([0.0, 50.0], num_bootstrap=10, seed=0)[1]
    (50.0, 1.0, 1.0, 1.0)
    """

    def __init__(self) -> None:
        self._curves = Rows()

    def update(self, curves: Tensor) -> None:
        """Keep `curves [N,P]`.

        Raises:
            ArgumentError: they are not [N,P].
        """
        if curves.ndim != 2:
            raise ArgumentError(f"`curves` must be [N,P], one row per image, got {list(curves.shape)}.")
        self._curves.append(curves)

    def reset(self) -> None:
        """Forget all images."""
        self._curves.clear()

    def compute(self) -> Tensor:
        """The mean curve [P], float64; with several processes all must call it."""
        return self._curves.every().nanmean(dim=0)

    def points(self, x: Sequence[float], *, num_bootstrap: int, seed: int) -> list[Point]:
        """The mean at each of the places `x` with its 95 % interval; with several processes all must call it.

        Raises:
            ArgumentError: there are not as many places as points.
        """
        columns = self._curves.every().T
        if len(columns) != len(x):
            raise ArgumentError(f"`x` must have {len(columns)} places as the curves have points, got {len(x)}.")
        means = columns.nanmean(dim=1).tolist()
        intervals = [bootstrap_interval(column, num_resamples=num_bootstrap, seed=seed) for column in columns]
        return [(place, mean, *ends) for place, mean, ends in zip(x, means, intervals, strict=True)]
