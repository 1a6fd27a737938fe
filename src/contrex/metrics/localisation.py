"""What metrics of localisation share: where the object is, the heatmap at the image's size, and who was skipped.

Axes: N images, h w the heatmap at layer size, H W one image's own size, M boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from contrex import ranks
from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite

Region: TypeAlias = Tensor | NDArray[np.float32] | NDArray[np.bool_] | Sequence[Sequence[float]]
"""Where the object is: boxes `[M,4]`, also as plain lists, or a boolean mask `[H,W]`."""


def object_mask(region: Region, image_size: tuple[int, int], index: int = 0) -> Tensor:
    """The pixels whose centre is in one of the boxes, or the mask itself, boolean `[H,W]`.

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
    # Summed over the boxes, row by column: above 0 where any box is, so overlaps count once.
    num_boxes_over: Tensor = in_rows.float().T @ in_columns.float()
    return num_boxes_over > 0


def has_object(region: Region, index: int = 0) -> bool:
    """Whether there is a box, or a pixel of the mask.

    >>> has_object([]), has_object(torch.ones(2, 2, dtype=torch.bool))
    (False, True)
    """
    known = _as_tensor(region, index)
    return bool(known.any()) if known.dtype == torch.bool else len(known) > 0


def resized_positive(heatmap: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The positive part of one map `[h,w]` at the size of its image, float64 `[H,W]`; NaN where it has none.

    The bilinear resize (`align_corners=False`) of `relu(heatmap) / max`: the largest value is divided out first, so
    that sums neither overflow nor lose small maps.

    >>> resized_positive(torch.tensor([[-1.0, 4.0]]), (1, 4))
    tensor([[0.0000, 0.2500, 0.7500, 1.0000]], dtype=torch.float64)
    """
    positive = heatmap.double().relu()
    positive = positive / positive.max()
    return interpolate(positive[None, None], size=tuple(image_size), mode="bilinear", align_corners=False)[0, 0]


def check_maps_and_regions(heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
    """Raise `ArgumentError` unless finite heatmaps `[N,h,w]`, boxes and sizes are of the same number of images."""
    if heatmaps.ndim != 3:
        raise ArgumentError(f"`heatmaps` must be [N,h,w], got {list(heatmaps.shape)}.")
    if not len(heatmaps) == len(boxes) == len(image_sizes):
        raise ArgumentError(
            f"`heatmaps`, `boxes` and `image_sizes` must be of the same images, got {len(heatmaps)}, {len(boxes)} and "
            f"{len(image_sizes)}: `boxes` holds one [M,4] per image."
        )
    check_finite("heatmaps", heatmaps)


class LocalisationMetric(PerSampleMetric):
    """A metric of heatmaps against boxes, with separate counts of the two kinds of skipped images.

    A subclass' `update` calls `count`.
    """

    unit = "%"
    skip_reason = "no box (or mask) of the class, or an empty heatmap (no positive value)"
    higher_is_better = True

    without_map = "with an empty heatmap (no positive value)"
    """What an image is like that has a box and no value."""

    objects: frozenset[str] = frozenset()
    """What the objects were given by, in words."""

    num_columns = 2  # the value, and 1 where there is an object

    def count(self, values: Tensor, boxes: Sequence[Region]) -> None:
        """Keep `values [N]` of images with these boxes; NaN for one with neither box nor heat counts as without box."""
        are_masks = [_as_tensor(region, index).dtype == torch.bool for index, region in enumerate(boxes)]
        self.objects |= {"mask" if is_mask else "box" for is_mask in are_masks}
        has_box = [has_object(region, index) for index, region in enumerate(boxes)]
        self.append(values, torch.tensor(has_box, dtype=torch.bool, device="cpu"))

    def describe_skipped(self) -> str:
        """How many images were skipped for which reason; empty when none was. A sync point, as `rows`."""
        values, has_box = self.rows().unbind(1)
        num_without_box = int((has_box == 0).sum())
        objects = set().union(*ranks.gathered(self.objects))  # a process without images knows of none
        reasons = {
            f"without a {' or '.join(sorted(objects))} of the class": num_without_box,
            self.without_map: int(values.isnan().sum()) - num_without_box,
        }
        return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)


def _as_tensor(region: Region, index: int) -> Tensor:
    try:
        known = region if isinstance(region, Tensor) else torch.tensor(region, device="cpu")
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"`boxes[{index}]` must be [M,4] or a boolean mask, got {region!r}: {error}.") from None
    return known.reshape(0, 4) if known.shape == (0,) else known  # an empty list


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
