"""A protocol of one's own: two metrics of one measurement, what sets them apart, and words that fit the options.

contrex evaluate RUN --metrics top1 docs/examples/heatmap_size.py:HeatmapSize --contrast weighted
"""

import torch

from contrex.evaluation import Protocol
from contrex.metrics import PerSampleMetric


def share_of_cells(heatmaps, part):
    """The share in % of the cells that hold `part` % of the positive heatmap [N,h,w], largest first; float64 [N]."""
    values = heatmaps.double().clamp(min=0).flatten(1).sort(dim=1, descending=True).values
    held = values.cumsum(dim=1) / values.sum(dim=1, keepdim=True)  # NaN where nothing is positive
    needed = (held < part / 100).sum(dim=1) + 1
    return (100.0 * needed / values.shape[1]).where(~held.isnan().any(dim=1), torch.nan)


class CellsFor(PerSampleMetric):
    """Mean share of the cells that hold one part of the heatmap, in %."""

    unit = "%"
    higher_is_better = None  # a large object has a large heatmap
    skip_reason = "nothing positive in the heatmap"

    def __init__(self, part):
        self.part, self.name, self.title = part, f"cells_for_{part}", f"Cells of the heatmap, {part} % of it"
        super().__init__()

    def update(self, heatmaps):
        """Count a batch of heatmaps [N,h,w]."""
        self.append(share_of_cells(heatmaps, self.part))


class HeatmapSize(Protocol):
    """Heatmap size: how few cells hold half of the positive heatmap, and how few nine tenths."""

    name = "heatmap_size"
    title = "Size of the heatmap"
    needs_heatmaps = True

    def __init__(self, bench):
        super().__init__(bench)
        self.metrics = [self.placed(CellsFor(part), {"part": part}) for part in (50, 90)]

    def judge(self, group):
        """Show a group's heatmaps to both metrics."""
        for metric in self.metrics:
            metric.update(group.explanation.heatmap)
        return group.indices

    def meaning(self):
        """What the numbers say under these options."""
        against = ", against the other classes," if self.bench.options.contrast else ""
        return f"How many cells of the predicted class's heatmap{against} hold that part of what is positive in it."

    def details(self):
        """How the heatmaps were made."""
        return {**self.bench.shared_details(), "explained_class": "predicted"}
