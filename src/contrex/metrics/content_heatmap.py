"""Content Heatmap: how much of a heatmap lies on the object.

Axes: N images, h w the heatmap at layer size, H W one image's own size, M boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric

Region: TypeAlias = Tensor | NDArray[np.float32] | NDArray[np.bool_] | Sequence[Sequence[float]]
"""Where the object is: boxes `[M,4]`, also as plain lists, or a boolean mask `[H,W]`."""


def content_heatmap(heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Share of each heatmap inside the boxes of its image, in %.

    `CH_n = 100 * sum_{(r,c) in B_n} u_n[r,c] / sum_{r,c} u_n[r,c]`, `u_n` the bilinear resize (`align_corners=False`)
    of `relu(heatmap_n)` to the image's own size and `B_n` the *union* of its boxes.

    CGC (Pillai et al., CVPR 2022, section 4), after Pillai and Pirsiavash (AAAI 2021). As in the published code an
    all-zero map is left out of the mean, which the paper does not say; here it is NaN, so that it can be counted.
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
    _check(heatmaps, boxes, image_sizes)
    shares = torch.full((len(heatmaps),), torch.nan, dtype=torch.float64, device=heatmaps.device)
    for index, (heatmap, region, size) in enumerate(zip(heatmaps, boxes, image_sizes, strict=True)):
        mask = object_mask(region, size, index).to(heatmaps.device)
        if _has_object(region, index):
            shares[index] = _share_inside(heatmap, mask)
    return shares


def object_mask(region: Region, image_size: tuple[int, int], index: int = 0) -> Tensor:
    """Boolean `[H,W]`: the pixels whose centre is in one of the boxes, or the mask itself.

    Raises:
        ArgumentError: as `content_heatmap`; messages name `boxes[index]`.

    >>> object_mask(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 4)).int()
    tensor([[0, 1, 1, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    known = _as_tensor(region, index)
    if known.dtype == torch.bool:
        if known.shape != tuple(image_size):
            raise ArgumentError(f"`boxes[{index}]` is a mask of {list(known.shape)}, its image {list(image_size)}.")
        return known
    _check_boxes(known, image_size, index)
    columns, rows = (torch.arange(size, device=known.device) + 0.5 for size in (image_size[1], image_size[0]))
    xmin, ymin, xmax, ymax = known.double().T[:, :, None]
    in_columns = (xmin <= columns) & (columns < xmax)
    in_rows = (ymin <= rows) & (rows < ymax)
    num_boxes_over: Tensor = in_rows.float().T @ in_columns.float()
    return num_boxes_over > 0


class ContentHeatmap(PerSampleMetric):
    """Content Heatmap in %: `content_heatmap`, with separate counts of the two kinds of skipped images.

    >>> metric = ContentHeatmap()
    >>> metric.update(torch.ones(2, 7, 7), [torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.zeros(0, 4)], [(8, 16)] * 2)
    >>> metric.compute()
    tensor(50., dtype=torch.float64)
    >>> metric.describe_skipped()
    '1 without a box of the class'
    """

    name = "content_heatmap"
    title = "Content Heatmap"
    unit = "%"
    skip_reason = "no box of the class, or an empty heatmap (no positive value)"
    higher_is_better = True

    num_without_box: Tensor
    num_empty: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("num_without_box", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_empty", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
        """Count a batch; arguments as `content_heatmap`. An image with neither box nor heat counts as without box."""
        values = content_heatmap(heatmaps, boxes, image_sizes)
        without_box = sum(not _has_object(region, index) for index, region in enumerate(boxes))
        self.append(values)
        self.num_without_box = self.num_without_box + without_box
        self.num_empty = self.num_empty + (values.isnan().sum().to(self.num_empty.device) - without_box)

    def describe_skipped(self) -> str:
        """How many images were skipped for which reason; empty when none was."""
        with self._synchronised():
            reasons = {
                "without a box of the class": int(self.num_without_box),
                "with an empty heatmap (no positive value)": int(self.num_empty),
            }
        return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)


def _share_inside(heatmap: Tensor, mask: Tensor) -> Tensor:
    # The largest value is divided out first, so that sums neither overflow nor lose small maps.
    positive = heatmap.double().relu()
    positive = positive / positive.max()
    resized = interpolate(positive[None, None], size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    return 100.0 * (resized * mask).sum() / resized.sum()


def _as_tensor(region: Region, index: int) -> Tensor:
    try:
        known = region if isinstance(region, Tensor) else torch.tensor(region)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"`boxes[{index}]` must be [M,4] or a boolean mask, got {region!r}: {error}.") from None
    return known.reshape(0, 4) if known.shape == (0,) else known  # an empty list


def _has_object(region: Region, index: int) -> bool:
    known = _as_tensor(region, index)
    return bool(known.any()) if known.dtype == torch.bool else len(known) > 0


def _check(heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
    if heatmaps.ndim != 3:
        raise ArgumentError(f"`heatmaps` must be [N,h,w], got {list(heatmaps.shape)}.")
    if not len(heatmaps) == len(boxes) == len(image_sizes):
        raise ArgumentError(
            f"`heatmaps`, `boxes` and `image_sizes` must be of the same images, got {len(heatmaps)}, {len(boxes)} and "
            f"{len(image_sizes)}: `boxes` holds one [M,4] per image."
        )
    broken = ~heatmaps.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ArgumentError(f"`heatmaps` must be finite, got NaN or infinity at index {int(broken.nonzero()[0])}.")


def _check_boxes(boxes: Tensor, image_size: tuple[int, int], index: int) -> None:
    height, width = image_size
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ArgumentError(f"`boxes[{index}]` must be [M,4] or a boolean mask, got {boxes.dtype} {list(boxes.shape)}.")
    for xmin, ymin, xmax, ymax in boxes.tolist():
        box = f"`boxes[{index}]` has ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})"
        if not (xmin < xmax and ymin < ymax):
            raise ArgumentError(
                f"{box}, which is empty: order is xmin, ymin, xmax, ymax with xmin < xmax, ymin < ymax."
            )
        if xmax <= 0 or ymax <= 0 or xmin >= width or ymin >= height:
            raise ArgumentError(f"{box}, outside its image of {height} x {width} (H x W): give pixels of that image.")
