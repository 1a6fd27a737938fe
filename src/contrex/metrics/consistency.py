"""The CGC loss as a measure of how consistent heatmaps are under crops and flips.

Axes: N anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite


class CGCLossMetric(PerSampleMetric):
    """Mean of the CGC loss (paper's form) over validation images; lower is more consistent.

    CGC (Pillai et al., CVPR 2022, section 4, table 1). Protocol: batches of 32 images, one transformed copy of each,
    so each anchor has 1 positive and 31 negatives. The value depends on that number - equal heatmaps everywhere give
    `log(32)` - so images of a last, smaller batch are skipped. Nothing is computed here: `update` takes the loss of
    each anchor, and how many images were skipped.

    >>> metric = CGCLossMetric()
    >>> metric.update(torch.tensor([2.0, 3.0]))
    >>> metric.compute()
    tensor(2.5000, dtype=torch.float64)
    """

    name = "cgc_loss"
    title = "CGC loss"
    higher_is_better = False
    skip_reason = "in a last, incomplete batch"

    def update(self, losses: Tensor, num_skipped: int = 0) -> None:
        """Count `losses [N]`, one per anchor, and then `num_skipped` images without one.

        Raises:
            ArgumentError: `losses` is not `[N]`, or holds NaN or infinity.
        """
        if losses.ndim != 1:
            raise ArgumentError(f"`losses` must be [N], one per anchor, got {list(losses.shape)}: do not average them.")
        check_finite("losses", losses)
        self.append(losses)
        self.append(losses.new_full((num_skipped,), torch.nan))
