"""Calibration: whether a network is right as often as it is confident.

Axes: N images, K classes, M bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.accuracy import top_k_correct
from contrex.metrics.per_sample import PerSampleMetric
from contrex.ops import scores
from contrex.ops.bootstrap import DRAWS_AT_ONCE
from contrex.records import MetricRecord

NUM_BINS = 15
"""How many bins Guo et al. have, and most papers since."""


def confidence_and_correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability of each image, and whether its class is the label.

    Args:
        logits: `[N,K]`; not probabilities. The softmax of several, the sigmoids of both sides of one.
        labels: integers `[N]` in `0..K-1`; of one logit 0 or 1.

    Returns:
        `(confidence [N] float64 in 1/K..1, of one logit in 1/2..1, correct [N] boolean)`; of equal logits the lower
        class is predicted.

    Raises:
        ArgumentError: a shape or a label does not fit, or a logit is NaN or infinite.

    >>> confidence_and_correct(torch.tensor([[0.0, 0.0], [0.0, 100.0]]), torch.tensor([1, 1]))
    (tensor([0.5000, 1.0000], dtype=torch.float64), tensor([False,  True]))
    """
    correct = top_k_correct(logits, labels, 1)
    if not logits.isfinite().all():
        raise ArgumentError("`logits` must be finite, got infinity: its confidence is not defined.")
    return scores.probabilities(logits.double()).amax(dim=1), correct


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Confidence and accuracy in M bins of equal width; bin m holds confidences in `(m / M, (m + 1) / M]`.

    `count` int64, `confidence` and `accuracy` float64 in 0..1, all `[M]`; the two means are NaN where no image is.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> Tensor:
        """The expected calibration error `sum_m (count_m / N) |accuracy_m - confidence_m|`, 0..1; NaN of no image."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num()
        return (self.count * gaps).sum() / self.count.sum()


def reliability_diagram(confidence: Tensor, correct: Tensor, *, num_bins: int = NUM_BINS) -> ReliabilityDiagram:
    """What a reliability diagram shows: how often the network is right where it is how confident.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2: bins of equal width, open below and
    closed above, so that a confidence of exactly 1 is in the last.

    Args:
        confidence: `[N]`, in 0..1.
        correct: boolean `[N]`.
        num_bins: M.

    Raises:
        ArgumentError: the shapes differ, `num_bins` is below 1, or a confidence is NaN or not in 0..1.

    >>> diagram = reliability_diagram(torch.tensor([0.4, 0.9, 1.0]), torch.tensor([True, True, False]), num_bins=2)
    >>> diagram.count.tolist(), diagram.accuracy.tolist()
    ([1, 2], [1.0, 0.5])
    """
    bins = _bins(confidence, correct, num_bins)
    ones = torch.ones_like(bins, dtype=torch.float64)
    count, confident, right = (
        torch.zeros(num_bins, dtype=torch.float64, device=bins.device).index_add(0, bins, values.double())
        for values in (ones, confidence, correct)
    )
    return ReliabilityDiagram(count.long(), confident / count, right / count)


def expected_calibration_error(confidence: Tensor, correct: Tensor, *, num_bins: int = NUM_BINS) -> Tensor:
    """The mean gap between accuracy and confidence over M bins of equal width, a float64 scalar in 0..1.

    `sum_m (n_m / N) |accuracy_m - confidence_m|`, n_m the images in bin m.

    Guo et al. (ICML 2017), eq. 3, after Naeini et al. (AAAI 2015). It equals torchmetrics' `MulticlassCalibrationError`
    (`norm="l1"`), which however puts a confidence of exactly 1 into a bin of its own and takes bins that are closed
    below. Arguments and errors as `reliability_diagram`; NaN without images.

    >>> expected_calibration_error(torch.tensor([0.75, 0.75, 0.75, 0.75]), torch.tensor([True, True, False, False]))
    tensor(0.2500, dtype=torch.float64)
    """
    return reliability_diagram(confidence, correct, num_bins=num_bins).error


class ExpectedCalibrationError(PerSampleMetric):
    """Expected calibration error in %, lower is better: `expected_calibration_error` over all images.

    It is no mean over images, but each image has a share in it that is: with `d_n = correct_n - confidence_n`, the
    error is `(1 / N) sum_n s_n d_n`, where `s_n` is the sign of the sum of d over the bin of n. `values` are those
    `s_n d_n`, in %: they average to the error, so that two networks can be compared image by image, and they depend on
    the other images through the sign, so there are none before all have been seen.

    The interval of `record` resamples images and bins them anew. ECE is biased upwards, the more so the better the
    calibration, and each resample adds the bias once more. So it is the basic interval, `[2 e - q_high, 2 e - q_low]`
    of the resamples' quantiles q, cut off at 0 (Davison and Hinkley 1997, section 5.2), which takes the bias off; the
    percentile one, which other metrics have, would put it in twice. Of a nearly perfectly calibrated network with few
    images it may still miss both the true error and the estimate.

    >>> metric = ExpectedCalibrationError(num_bins=10)
    >>> metric.update(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))  # half sure and always right
    >>> metric.compute()
    tensor(50., dtype=torch.float64)
    """

    name = "ece"
    unit = "%"
    higher_is_better = False
    per_image = "shares"
    num_columns = 2  # the confidence, and 1 where the network is right

    def __init__(self, num_bins: int = NUM_BINS) -> None:
        _check_num_bins(num_bins)
        self.num_bins, self.title = num_bins, f"Expected calibration error, {num_bins} bins"
        super().__init__()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: `logits [N,K]`, `labels [N]`."""
        self.append(*confidence_and_correct(logits, labels))

    def mean_of(self, rows: Tensor) -> Tensor:
        """The error over the counted images, a float64 scalar in %; NaN when none is counted."""
        return 100.0 * self._diagram(rows).error

    def values_of(self, rows: Tensor) -> Tensor:
        """Each image's share of the error in %, float64 `[N]`; they average to the error."""
        gaps, bins = self._gaps(rows)
        return 100.0 * _signs(gaps, bins, self.num_bins)[bins] * gaps

    def diagram(self) -> ReliabilityDiagram:
        """The reliability diagram over the images of every process; with several processes all must call it."""
        return self._diagram(self.rows())

    def own_values(self) -> Tensor:
        """The shares of this process' images only, `[N]`; with several processes all must call it."""
        # Sync point: the rows of all processes are needed for the sign of a bin.
        signs = _signs(*self._gaps(self.rows()), self.num_bins)  # the sign of a bin is that of all its images
        gaps, bins = self._gaps(self.rows(own=True))
        return 100.0 * signs[bins] * gaps

    def record(self, num_bootstrap: int, seed: int, protocol: Mapping[str, Any] | None = None) -> MetricRecord:
        """The metric's entry in a run's record, with the basic bootstrap interval of the error itself.

        With several processes all must call it."""
        if num_bootstrap < 1:
            raise ArgumentError(f"`num_bootstrap` must be at least 1, got {num_bootstrap}: 2000 is usual.")
        record = super().record(1, seed, {"bins": self.num_bins, **(protocol or {})})
        gaps, bins = (values.numpy() for values in self._gaps(self.rows()))
        if len(gaps) < 2:
            return record
        errors = 100.0 * _resampled_errors(gaps, bins, self.num_bins, num_bootstrap, np.random.default_rng(seed))
        low, high = np.quantile(errors, [0.025, 0.975])
        return replace(record, low=max(0.0, 2 * record.value - high), high=max(0.0, 2 * record.value - low))

    def _diagram(self, rows: Tensor) -> ReliabilityDiagram:
        confidence, correct = rows.T.contiguous()
        return reliability_diagram(confidence, correct > 0, num_bins=self.num_bins)

    def _gaps(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The gap `correct - confidence` of each image, float64 [N], and its bin [N]."""
        confidence, correct = rows.T.contiguous()
        return correct - confidence, _bins(confidence, correct > 0, self.num_bins)


def _bins(confidence: Tensor, correct: Tensor, num_bins: int) -> Tensor:
    """The bin of each image, int64 [N]; 0 also holds a confidence of 0."""
    _check_num_bins(num_bins)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ArgumentError(
            f"`confidence` and `correct` must both be [N], got {list(confidence.shape)} and {list(correct.shape)}."
        )
    if correct.dtype != torch.bool:
        raise ArgumentError(f"`correct` must be boolean, got {correct.dtype}.")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        index = int((~((confidence >= 0) & (confidence <= 1))).nonzero()[0])
        raise ArgumentError(f"`confidence` must lie in 0..1, got {confidence[index].item()} at index {index}.")
    inner = torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins
    return torch.bucketize(confidence.double(), inner)


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise ArgumentError(f"`num_bins` must be at least 1, got {num_bins}: 15 is usual.")


def _signs(gaps: Tensor, bins: Tensor, num_bins: int) -> Tensor:
    """Whether the images of each bin are, together, rather right (1) or rather confident (-1), float64 [M]."""
    return torch.zeros(num_bins, dtype=torch.float64, device=gaps.device).index_add(0, bins, gaps).sign()


def _resampled_errors(
    gaps: NDArray[np.float64],
    bins: NDArray[np.int64],
    num_bins: int,
    num_resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The error `[R]` of R resamples of the N images; the order of the images does not matter."""
    # Sorted, so that the draws meet the same images whatever the order in which processes gave them.
    order = np.lexsort((gaps, bins))
    gaps, bins = gaps[order], bins[order]
    errors: list[NDArray[np.float64]] = []
    at_once = max(1, DRAWS_AT_ONCE // len(gaps))
    for first in range(0, num_resamples, at_once):
        rows = min(at_once, num_resamples - first)
        drawn = generator.integers(len(gaps), size=(rows, len(gaps)), dtype=np.int32)
        # A bin of its own for each resample: one `bincount` sums all of them.
        cells = bins[drawn] + num_bins * np.arange(rows)[:, None]
        sums = np.bincount(cells.ravel(), gaps[drawn].ravel(), minlength=rows * num_bins).reshape(rows, num_bins)
        errors.append(np.abs(sums).sum(axis=1) / len(gaps))
    return np.concatenate(errors)
