"""One value per image, its mean and its interval: what every metric of contrex accumulates.

The mathematics of a metric is a pure function that returns one float64 value per image, NaN where it is undefined.
`PerSampleMetric` only keeps those values, so the mean, its interval, the column in `samples.csv` and the number of
images counted all come from the same list, on one process or on many.

Axes: N images, D numbers kept of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.rows import Rows
from contrex.ops.bootstrap import resampled_means
from contrex.records import Dims, MetricRecord, PerImage


def bootstrap_interval(values: ArrayLike, *, num_resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean (Efron and Tibshirani 1993, section 13.3).

    `num_resamples` times, draw N of the N values with replacement and take their mean; the interval runs from the
    `(1 - level) / 2` to the `(1 + level) / 2` quantile of those means. NaN values (skipped images) are left out.

    The values are sorted first, so the interval depends on them and on `seed`, but not on their order, hence not on
    the number of processes they come from. Memory stays below about 16 MB, or 12 bytes a value where that is more.

    Returns:
        `(low, high)` in the unit of `values`; NaN both when fewer than two values are left.

    Raises:
        ArgumentError: `num_resamples` is below 1, or `level` is not between 0 and 1.

    >>> bootstrap_interval([1.0, 1.0, 1.0], num_resamples=10, seed=0)
    (1.0, 1.0)
    """
    if num_resamples < 1:
        raise ArgumentError(f"`num_resamples` must be at least 1, got {num_resamples}: 2000 is usual.")
    if not 0 < level < 1:
        raise ArgumentError(f"`level` must lie between 0 and 1, got {level}: 0.95 is usual.")
    sample = np.asarray(values, dtype=np.float64).ravel()
    # Sorted, as processes give their images in another order than one process does.
    sample = np.sort(sample[~np.isnan(sample)])
    if len(sample) < 2:
        return float("nan"), float("nan")
    means = resampled_means(sample[None], num_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class PerSampleMetric(ABC):
    """Keeps one float64 value per image; NaN marks an image that has no defined value and is skipped.

    A subclass sets the attributes below, before `super().__init__()` where they depend on its arguments, and writes
    `update`, which calls `append`. Processes may hold different numbers of images, or none: what they give together
    equals what one process gives for all the images. `contrex.metrics.as_torchmetric` makes a torchmetrics metric of
    one.

    - `name`: key in records; `title`: words for a reader.
    - `unit`: `"%"` when the values are percentages, else `""`.
    - `higher_is_better`: whether more is better; None where neither is.
    - `skip_reason`: which images have no value; empty when each has one.
    - `per_image`: what the values of single images are to the metric (`contrex.records.PerImage`).
    - `dims`: what sets it apart from others of its kind, such as {"size": 3}.
    - `num_columns`: D, the value and what else `append` is given of each image.
    """

    name: str
    title: str
    unit: str = ""
    skip_reason: str = ""
    higher_is_better: bool | None
    per_image: PerImage = "values"
    dims: Dims = MappingProxyType({})
    num_columns: ClassVar[int] = 1

    def __init__(self) -> None:
        self._rows = Rows()

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch of images."""

    def append(self, values: Tensor, *more: Tensor) -> None:
        """Keep `values [N]`, in `unit`, NaN for skipped images, and beside each what the metric needs `more` of, `[N]`.

        Raises:
            ArgumentError: `values` is not one-dimensional.
        """
        if values.ndim != 1:
            raise ArgumentError(f"`values` of {self.name} must be [N], one per image, got {list(values.shape)}.")
        self._rows.append(torch.stack([column.to(values.device, torch.float64) for column in (values, *more)], dim=1))

    def reset(self) -> None:
        """Forget all images."""
        self._rows.clear()

    def compute(self) -> Tensor:
        """The mean over the counted images, a float64 scalar in `unit`; NaN when none is counted.

        With several processes all must call it."""
        return self.mean_of(self.rows())

    def mean_of(self, rows: Tensor) -> Tensor:
        """The number that the metric gives for the images whose rows `[N,D]` these are: the mean of their values."""
        return self.values_of(rows).nanmean()

    def values_of(self, rows: Tensor) -> Tensor:
        """The value of each image, `[N]`, in `unit`, from the rows `[N,D]` of all of them."""
        return rows[:, 0].contiguous()

    def rows(self, *, own: bool = False) -> Tensor:
        """The rows `[N,D]` of every process, for which all must call it, or of this process' `own` images only."""
        rows = self._rows.own() if own else self._rows.every()
        return rows.reshape(-1, self.num_columns)  # of no rows nobody knows D

    def values(self) -> Tensor:
        """The value of every image of every process, float64 `[N]`; NaN where it was skipped.

        Images come in the order of the updates, process after process; with several processes all must call it."""
        return self.values_of(self.rows())

    def own_values(self) -> Tensor:
        """The values of this process' images only, float64 `[N]`, in the order of the updates."""
        return self.values_of(self.rows(own=True))

    def record(self, num_bootstrap: int, seed: int, protocol: Mapping[str, Any] | None = None) -> MetricRecord:
        """The metric's entry in a run's record, its interval from `num_bootstrap` resamples drawn from `seed`.

        With several processes all must call it."""
        values = self.values().numpy()
        low, high = bootstrap_interval(values, num_resamples=num_bootstrap, seed=seed)
        counted = values[~np.isnan(values)]
        return MetricRecord(
            name=self.name,
            title=self.title,
            value=float(counted.mean()) if len(counted) else float("nan"),
            low=low,
            high=high,
            num_counted=len(counted),
            num_skipped=len(values) - len(counted),
            skip_reason=self.describe_skipped(),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            protocol=dict(protocol or {}),
        )

    def describe_skipped(self) -> str:
        """Which images were skipped, in words; with several processes all must call it."""
        return self.skip_reason
