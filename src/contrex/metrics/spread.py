"""How much of the picture a heatmap is spread over."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite


def spread(heatmaps: Tensor) -> Tensor:
    """The share of the cells that an even map of the same entropy covers, float64 [N] in 0..1.

    `exp(-sum_k p_k log p_k) / n` for the positive part p of a map, divided by its sum, over its n cells: 1 for a
    uniform map, 1/n for a single cell; NaN where nothing is positive. The entropy's exponential is the "effective
    number" of cells (Hill, Ecology 1973, of order 1).

    Raises:
        ArgumentError: `heatmaps` is not [N,h,w], or not finite.

    >>> spread(torch.tensor([[[1.0, 1.0], [0.0, -3.0]]]))
    tensor([0.5000], dtype=torch.float64)
    """
    if heatmaps.ndim != 3 or heatmaps.numel() == 0:
        raise ArgumentError(f"`heatmaps` must be [N,h,w] with N >= 1, got {list(heatmaps.shape)}.")
    check_finite("heatmaps", heatmaps)
    values = heatmaps.double().clamp(min=0).flatten(1)
    total = values.sum(1, keepdim=True)
    shares = values / total.where(total > 0, torch.nan)
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy.exp() / shares.shape[1]


class Spread(PerSampleMetric):
    """Mean of `spread`, in %. Neither direction is better: an object may be small or fill the picture.

    >>> metric = Spread()
    >>> metric.update(torch.ones(3, 7, 7))
    >>> round(metric.compute().item(), 3)
    100.0
    """

    name = "spread"
    title = "Spread of the heatmap"
    unit = "%"
    higher_is_better = None
    skip_reason = "nothing positive in the heatmap"

    def update(self, heatmaps: Tensor) -> None:
        """Count heatmaps `[N,h,w]`."""
        self.append(100 * spread(heatmaps))
