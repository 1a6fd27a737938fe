"""Metrics judge heatmaps: pure functions that return one value per image, and thin torchmetrics accumulators.

| name | function | accumulator | takes |
|---|---|---|---|
| `top1`, `top5` | `top_k_correct` | `TopKAccuracy` | logits, labels |
| `content_heatmap` | `content_heatmap` | `ContentHeatmap` | heatmaps, boxes, image sizes |
| `cgc_loss` | computed by `contrex.losses` | `CGCLossMetric` | losses of the anchors |
| `insertion_auc` | `insertion_curve`, `area_under_curve` | `InsertionAUC` | curves |
| `deletion_auc` | `deletion_curve`, `area_under_curve` | `DeletionAUC` | curves |

A new metric is a file with both, and a line in `METRICS`; its `judges` tells the evaluation what to show it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from contrex.metrics.accuracy import TopKAccuracy, top_k_correct
from contrex.metrics.consistency import CGCLossMetric
from contrex.metrics.content_heatmap import ContentHeatmap, content_heatmap, object_mask
from contrex.metrics.insertion import (
    DeletionAUC,
    InsertionAUC,
    area_under_curve,
    curve_fractions,
    deletion_curve,
    insertion_curve,
)
from contrex.metrics.per_sample import PerSampleMetric, bootstrap_interval

METRICS: dict[str, Callable[[], PerSampleMetric]] = {
    "top1": partial(TopKAccuracy, k=1),
    "top5": partial(TopKAccuracy, k=5),
    "content_heatmap": ContentHeatmap,
    "cgc_loss": CGCLossMetric,
    "insertion_auc": InsertionAUC,
    "deletion_auc": DeletionAUC,
}
"""What makes each metric, by the name it has in settings and records."""

__all__ = [
    "METRICS",
    "CGCLossMetric",
    "ContentHeatmap",
    "DeletionAUC",
    "InsertionAUC",
    "PerSampleMetric",
    "TopKAccuracy",
    "area_under_curve",
    "bootstrap_interval",
    "content_heatmap",
    "curve_fractions",
    "deletion_curve",
    "insertion_curve",
    "object_mask",
    "top_k_correct",
]
