"""Metrics judge heatmaps: pure functions that return one value per image, and thin torchmetrics accumulators.

| name | function | accumulator | takes |
|---|---|---|---|
| `top1`, `top5` | `top_k_correct` | `TopKAccuracy` | logits, labels |
| `content_heatmap` | `content_heatmap` | `ContentHeatmap` | heatmaps, boxes, image sizes |
| `cgc_loss` | computed by `contrex.losses` | `CGCLossMetric` | losses of the anchors |
| `insertion_auc` | `insertion_curve`, `area_under_curve` | `InsertionAUC` | curves |
| `deletion_auc` | `deletion_curve`, `area_under_curve` | `DeletionAUC` | curves |

A new metric is a file with both, and a protocol in `contrex.evaluation` that shows it a data set.
"""

from __future__ import annotations

from contrex.metrics.accuracy import TopKAccuracy, top_k_correct
from contrex.metrics.consistency import CGCLossMetric
from contrex.metrics.content_heatmap import ContentHeatmap, content_heatmap, object_mask
from contrex.metrics.curve_mean import CurveMean
from contrex.metrics.insertion import (
    CurveArea,
    DeletionAUC,
    InsertionAUC,
    area_under_curve,
    curve_fractions,
    deletion_curve,
    insertion_curve,
)
from contrex.metrics.per_sample import PerSampleMetric, bootstrap_interval

__all__ = [
    "CGCLossMetric",
    "ContentHeatmap",
    "CurveArea",
    "CurveMean",
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
