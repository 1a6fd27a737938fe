"""How near the features of an image are to those of its views.

Axes: N images, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric


def feature_similarity(features: Tensor, others: Tensor) -> Tensor:
    """Cosine of the angle between two feature vectors of each image, `<f, g> / (|f| |g|)`, float64 `[N]` in -1..1.

    What ExCon reads off its t-SNE pictures (ICLR 2022 submission, section 4.4), as a number; the paper has none.

    Args:
        features: `[N,D]` of the images.
        others: `[N,D]` of one view of each.

    Returns:
        NaN where either is all zero.

    Raises:
        ArgumentError: the shapes differ, or a feature is not finite.

    >>> feature_similarity(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 0.0]]))
    tensor([0.9600,    nan], dtype=torch.float64)
    """
    if features.ndim != 2 or features.shape != others.shape:
        raise ArgumentError(
            f"`features` and `others` must be [N,D] alike, got {list(features.shape)} and {list(others.shape)}."
        )
    is_finite = (features.isfinite() & others.isfinite()).all(dim=1)
    if not is_finite.all():
        raise ArgumentError(f"`features` must be finite, they are not at index {int(is_finite.int().argmin())}.")
    first, second = features.double(), others.double()
    lengths = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    cosine: Tensor = (first * second).sum(dim=1) / lengths.where(lengths > 0, torch.nan)
    return cosine.clamp(-1, 1)


class FeatureSimilarity(PerSampleMetric):
    """Mean cosine similarity between the features of an image and those of one view of it, -1..1: `feature_similarity`.

    Named `feature_similarity_<view>`.

    >>> metric = FeatureSimilarity("masked")
    >>> metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    >>> round(metric.compute().item(), 4)
    0.7071
    """

    skip_reason = "features that are all zero"
    higher_is_better = True

    def __init__(self, view: str) -> None:
        self.name, self.title = f"feature_similarity_{view}", f"Cosine of the features of image and {view} view"
        super().__init__()

    def update(self, features: Tensor, others: Tensor) -> None:
        """Count a batch; arguments as `feature_similarity`."""
        self.append(feature_similarity(features, others))
