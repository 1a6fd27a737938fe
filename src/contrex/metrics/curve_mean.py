"""The mean of a curve over images, with an interval at each point.

Axes: N images, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from contrex import ranks
from contrex.errors import ArgumentError
from contrex.metrics.per_sample import bootstrap_interval

Point = tuple[float, float, float, float]
"""x, the mean there, and the ends of its 95 % interval."""


class CurveMean(Metric):
    """Keeps the curve [P] of every image; NaN marks a point that an image does not have, and is left out of its mean.

    As `PerSampleMetric`, several processes give what one gives for all images.

    >>> mean = CurveMean()
    >>> mean.update(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    >>> mean.points([0.0, 50.0], num_bootstrap=10, seed=0)[1]
    (50.0, 1.0, 1.0, 1.0)
    """

    is_differentiable = False
    full_state_update = False

    curves: Any
    """A list of the parts, or one tensor after synchronising."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"compute_with_cache": False, **kwargs})
        self.set_dtype(torch.float64)
        self.add_state("curves", default=[], dist_reduce_fx="cat")

    def update(self, curves: Tensor) -> None:
        """Keep `curves [N,P]`.

        Raises:
            ArgumentError: they are not [N,P].
        """
        if curves.ndim != 2:
            raise ArgumentError(f"`curves` must be [N,P], one row per image, got {list(curves.shape)}.")
        self.curves.append(curves.detach().to(self.device, torch.float64))

    def compute(self) -> Tensor:
        """The mean curve [P], float64."""
        return self._all().nanmean(dim=0)

    def points(self, x: Sequence[float], *, num_bootstrap: int, seed: int) -> list[Point]:
        """The mean at each of the places `x` with its 95 % interval; with several processes all must call it.

        Raises:
            ArgumentError: there are not as many places as points.
        """
        # not torchmetrics' own synchronising: it cannot join [N,P] with what a process without images has
        parts = [part for part in ranks.gathered(self._all().cpu()) if part.numel()]
        columns = torch.cat(parts or [torch.empty(0, 0, dtype=torch.float64, device="cpu")]).T
        if len(columns) != len(x):
            raise ArgumentError(f"`x` must have {len(columns)} places as the curves have points, got {len(x)}.")
        means = columns.nanmean(dim=1).tolist()
        intervals = [bootstrap_interval(column, num_resamples=num_bootstrap, seed=seed) for column in columns]
        return [(place, mean, *ends) for place, mean, ends in zip(x, means, intervals, strict=True)]

    def _all(self) -> Tensor:
        if isinstance(self.curves, Tensor):
            return self.curves
        return torch.cat(self.curves) if self.curves else torch.empty(0, 0, dtype=torch.float64, device=self.device)
