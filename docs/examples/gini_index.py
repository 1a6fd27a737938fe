"""A metric of one's own: how unequally a heatmap is shared out among its cells, by the Gini index.

    contrex evaluate RUN --metrics top1 docs/examples/gini_index.py:GiniIndex

measures it, and `contrex report` shows it with the title, the unit, the direction and the meaning that stand here.
"""

import torch

from contrex.metrics import PerSampleMetric


def gini_index(heatmaps):
    """The Gini index of the positive part of each heatmap [N,h,w], float64 [N] in 0..1; NaN where nothing is positive.

    `G = 1 - 2 sum_k (v_(k) / sum(v)) (n - k + 1/2) / n` over the n cells `v_(1) <= ... <= v_(n)`: 0 for a uniform map,
    near 1 for a single cell (Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training",
    ICML 2020, section 4).
    """
    values = heatmaps.double().clamp(min=0).flatten(1).sort(dim=1).values
    num_cells = values.shape[1]
    ranks = torch.arange(1, num_cells + 1, dtype=torch.float64, device=values.device)
    total = values.sum(dim=1)
    shares = values / total.where(total > 0, torch.nan)[:, None]
    return 1 - 2 * (shares * (num_cells - ranks + 0.5) / num_cells).sum(dim=1)


class GiniIndex(PerSampleMetric):
    """How much of the positive heatmap lies in few cells: 0 when all have one share, near 1 when one has all."""

    name = "gini_index"
    title = "Gini index of the heatmap"
    higher_is_better = True
    skip_reason = "nothing positive in the heatmap"

    def update(self, group):
        """Count a group of images, whose explanation is made once for all metrics."""
        self.append(gini_index(group.explanation.heatmap))
