"""A loss of one's own, and the method that trains with it: heatmaps that move with the picture, by their cosine.

contrex train docs/examples/cosine_consistency.py:digits --method.weight 0.5
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from contrex.data.views.batch import Batch
from contrex.methods import ConsistencyStep
from contrex.ops import geometry, heatmap
from contrex.recipes.digits import cgc
from contrex.settings import Method, Recipe, Views


def cosine_consistency_loss(heatmaps: Tensor, heatmaps_view: Tensor, crop: geometry.Crop, *, size: int) -> Tensor:
    """`mean_i 1 - cos( T(g(x_i)), g(T(x_i)) )`, of the positive maps at `size` pixels a side.

    Args:
        heatmaps: `[N,h,w]`, of the plain images.
        heatmaps_view: `[N,h,w]`, of their transformed images.
        crop: the N transforms T.
        size: side of the images in pixels.

    Returns:
        A scalar between 0 (each map moves with its picture) and 1 (they have nothing in common).
    """
    plain, view = (heatmap.resize(heatmap.positive(maps), size) for maps in (heatmaps, heatmaps_view))
    moved = geometry.warp_heatmap(plain, crop)
    return (1 - F.cosine_similarity(moved.flatten(1), view.flatten(1))).mean()


@dataclass(frozen=True)
class CosineConsistency(Method):
    """Cross-entropy + `weight` x cosine distance of the heatmaps of an image and of its transformed image."""

    implementation: ClassVar[str] = ":CosineConsistencyStep"
    variant: ClassVar[str] = "paper"
    """Of the cross-entropy, as in CGC."""

    weight: float = 1.0
    """Of the distance."""
    views: Views = "both"
    """The views that the cross-entropy sees."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """Against which classes the heatmaps explain: None, "mean", "max" or "weighted"."""


class CosineConsistencyStep(ConsistencyStep):
    """`L = L_CE + weight * cosine_consistency_loss`; all but the loss is that of CGC."""

    def consistency(self, heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch) -> Tensor:
        """The loss between maps of plain and transformed images."""
        return cosine_consistency_loss(heatmaps, heatmaps_view, batch.views[0].crop, size=batch.images.shape[3])


def digits() -> Recipe:
    """The built-in digits with cosine consistency."""
    return replace(cgc(), name="digits_cosine_consistency", method=CosineConsistency())
