"""Content heatmap: how much of a heatmap lies on the object.

Axes: N images, h w the heatmap at layer size, H W one image's own size, M boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.metrics.localisation import (
    LocalisationMetric,
    Region,
    check_maps_and_regions,
    has_object,
    object_mask,
    resized_positive,
)
from contrex.metrics.spread import at_spread
from contrex.settings.ranges import check

__all__ = ["ContentHeatmap", "ContentHeatmapAtSpread", "Region", "content_heatmap", "object_mask"]


def content_heatmap(heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Share of each heatmap inside the boxes of its image, in %.

    `CH_n = 100 * sum_{(r,c) in B_n} u_n[r,c] / sum_{r,c} u_n[r,c]`, `u_n` the bilinear resize (`align_corners=False`)
    of `relu(heatmap_n)` to the image's own size and `B_n` the *union* of its boxes.

    CGC (Pillai et al., CVPR 2022, section 4), after Pillai and Pirsiavash (AAAI 2021). An all-zero map is NaN, so that
    it is left out of the mean and counted. *Deviation*: the published code has added 1e-8 to each cell when it asks
    whether a map is all zero, so there it is uniform and has the boxes' share of the image; the paper does not say.
    Pass the heatmap of the *ground-truth* class and only the boxes of that class.

    A pixel is inside a box when its centre is: `xmin <= c + 0.5 < xmax`, and so for rows. With integer edges these
    are the pixels `[ymin:ymax, xmin:xmax]`. What a box has outside the image does not count,
    and a box between pixel centres holds nothing: 0 %.

    Args:
        heatmaps: raw signed maps `[N,h,w]` of whole images, at layer size.
        boxes: for each image boxes `[M,4]`, `xmin, ymin, xmax, ymax` as edges in pixels of the image, M may be 0;
            or a boolean mask `[H,W]`, True on the object.
        image_sizes: `(H, W)` of each image.

    Returns:
        float64 `[N]` on the heatmaps' device, in 0..100; NaN where the map has no positive value and where there is
        no box (or the mask is all False).

    Raises:
        ArgumentError: shapes or counts differ, a heatmap is not finite, a box is empty or outside its image.

    >>> uniform = torch.ones(1, 7, 7)
    >>> content_heatmap(uniform, [torch.tensor([[0.0, 0.0, 50.0, 20.0]])], [(40, 100)])
    tensor([25.], dtype=torch.float64)
    """
    check_maps_and_regions(heatmaps, boxes, image_sizes)
    shares = torch.full((len(heatmaps),), torch.nan, dtype=torch.float64, device=heatmaps.device)
    for index, (heatmap, region, size) in enumerate(zip(heatmaps, boxes, image_sizes, strict=True)):
        mask = object_mask(region, size, index).to(heatmaps.device)
        if has_object(region, index):
            resized = resized_positive(heatmap, size)
            # NaN, from 0 / 0, where the map has no positive value.
            shares[index] = 100.0 * (resized * mask).sum() / resized.sum()
    return shares


class ContentHeatmap(LocalisationMetric):
    """Content heatmap in %: `content_heatmap`, with separate counts of the two kinds of skipped images.

    >>> metric = ContentHeatmap()
    >>> metric.update(torch.ones(2, 7, 7), [torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.zeros(0, 4)], [(8, 16)] * 2)
    >>> metric.compute()
    tensor(50., dtype=torch.float64)
    >>> metric.describe_skipped()
    '1 without a box of the class'
    """

    name = "content_heatmap"
    title = "Content heatmap"

    def update(self, heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
        """Count a batch; arguments as `content_heatmap`. An image with neither box nor heat counts as without box."""
        self.count(content_heatmap(heatmaps, boxes, image_sizes), boxes)


class ContentHeatmapAtSpread(LocalisationMetric):
    """Content heatmap in %, of maps that are all spread over the same share of their cells: `content_heatmap` after
    `at_spread`.

    Named `content_heatmap_at_spread_<share in %>`. No factor and no number added to all cells of a map changes it, so
    a map cannot gain by being small.

    >>> metric = ContentHeatmapAtSpread(share=0.25)
    >>> metric.update(torch.tensor([[[9.0, 1.0]], [[1.0, 1.0]]]).repeat(1, 2, 1), [[[0, 0, 8, 8]]] * 2, [(8, 16)] * 2)
    >>> metric.name, metric.describe_skipped()
    ('content_heatmap_at_spread_25', '1 with a constant heatmap')
    """

    skip_reason = "no box (or mask) of the class, or a constant heatmap"
    without_map = "with a constant heatmap"

    def __init__(self, *, share: float = 0.25) -> None:
        check(0 < share < 1, "share", share, "between 0 and 1")
        self.share = share
        self.name = f"content_heatmap_at_spread_{100 * share:g}".replace(".", "_")
        self.title = f"Content heatmap, maps spread over {100 * share:g} %"
        super().__init__()

    def update(self, heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
        """Count a batch; arguments as `content_heatmap`."""
        check_maps_and_regions(heatmaps, boxes, image_sizes)
        # a constant map has no number that brings it there: it becomes all zero, which is skipped
        equal = at_spread(heatmaps, self.share).nan_to_num(nan=0.0) if len(heatmaps) else heatmaps
        self.count(content_heatmap(equal, boxes, image_sizes), boxes)
