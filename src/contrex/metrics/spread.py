"""How much of the picture a heatmap is spread over, and heatmaps brought to one spread."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite
from contrex.settings.ranges import check


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
    _check_maps(heatmaps)
    values = heatmaps.double().clamp(min=0).flatten(1)
    total = values.sum(1, keepdim=True)
    shares = values / total.where(total > 0, torch.nan)
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy.exp() / shares.shape[1]


def at_spread(heatmaps: Tensor, share: float) -> Tensor:
    """Take one number off all cells of each heatmap, so that its positive part has the spread `share`.

    `T'_n = T_n - c_n` with `spread(T'_n) = share`, float64 [N,h,w]. A larger c leaves a more concentrated map (it
    majorizes), so there is one such number, which is found by halving. Where the largest values are tied in more cells
    than that, the limit: these cells alone, all equal. NaN where all cells are equal.

    Two maps that differ by a factor and a number added to all cells come out alike but for the factor. Not of a paper:
    the zero of the map of one class is not told by what a network predicts (docs/retrofit.md), and metrics that reward
    small maps depend on it.

    Raises:
        ArgumentError: `heatmaps` is not [N,h,w], or not finite, or `share` is not between 0 and 1.

    >>> at_spread(torch.tensor([[[4.0, 4.0], [2.0, -9.0]]]), 0.5).round(decimals=3).relu()
    tensor([[[2., 2.],
             [0., 0.]]], dtype=torch.float64)
    """
    _check_maps(heatmaps)
    check(0 < share < 1, "share", share, "between 0 and 1")
    values = heatmaps.double()
    highest, lowest = values.amax((1, 2), keepdim=True), values.amin((1, 2), keepdim=True)
    size = highest - lowest
    # in shares of each map's range, the largest value 0, so that neither large nor tiny maps lose digits
    values = (values - highest) / size.where(size > 0, torch.nan)
    low, high = torch.full_like(size, -_FAR), torch.zeros_like(size)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        wide = (spread((values - middle).nan_to_num()) > share)[:, None, None]
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    # the lower end leaves at least the largest cells
    return (values - low) * size


_FAR, _HALVINGS = 1e4, 60
"""So many ranges below its largest value a map is even to 1e-8, and after so many halvings the number is exact to
double precision."""


def _check_maps(heatmaps: Tensor) -> None:
    if heatmaps.ndim != 3 or heatmaps.numel() == 0:
        raise ArgumentError(f"`heatmaps` must be [N,h,w] with N >= 1, got {list(heatmaps.shape)}.")
    check_finite("heatmaps", heatmaps)


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
