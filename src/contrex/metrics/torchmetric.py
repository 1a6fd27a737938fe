"""Metrics of contrex as those of torchmetrics; needs the extra `torchmetrics`, which nothing else here does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contrex.errors import ContrexError
from contrex.metrics.per_sample import PerSampleMetric

if TYPE_CHECKING:
    from torchmetrics import Metric


class TorchmetricsMissingError(ContrexError, ImportError):
    """The package torchmetrics is not installed."""


def as_torchmetric(metric: PerSampleMetric, **options: Any) -> Metric:
    """A torchmetrics metric that counts what `metric` counts: for a `MetricCollection`, Lightning, `forward`, `clone`.

    `update` takes the arguments of the metric's own, `compute` gives the same number, and processes are synchronised by
    torchmetrics. `metric` itself stays as it is: it may go on counting on its own.

    Args:
        metric: any metric of this package, or a `PerSampleMetric` of one's own.
        options: those of `torchmetrics.Metric`, such as `dist_sync_on_step`.

    Raises:
        TorchmetricsMissingError: torchmetrics is not installed.

    >>> import torch
    >>> from contrex.metrics import TopKAccuracy
    >>> top1 = as_torchmetric(TopKAccuracy(k=1))
    >>> top1(torch.eye(2), torch.tensor([0, 0])), top1.compute()
    (tensor(50., dtype=torch.float64), tensor(50., dtype=torch.float64))
    """
    try:
        from contrex.metrics.torchmetric_class import TorchMetric
    except ModuleNotFoundError as error:
        if error.name != "torchmetrics":
            raise
        raise TorchmetricsMissingError(
            "`as_torchmetric` needs torchmetrics, which is not installed: pip install 'contrex[torchmetrics]'."
        ) from None
    return TorchMetric(metric, **options)
