"""The energy loss of heatmaps and boxes (Rao, Boehle, Parchami-Araghi and Schiele, "Studying How to Efficiently and
Effectively Guide Models with Explanations", ICCV 2023, section 3.3).

    L_n = 1 - ( sum over pixels in the boxes of A_n ) / ( sum over all pixels of A_n )

for the positive part A_n of a heatmap, enlarged bilinearly to the image: 0 where all of it is in the boxes. How it is
spread in them does not count.

Deviation: ReLU comes before enlarging, as in the other losses here; the published code has it after.

Legend: N heatmaps, h w heatmap in cells, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.losses.consistency import full_precision
from contrex.losses.inputs import check_maps
from contrex.ops import heatmap
from contrex.ops.geometry import upsampling_matrix

EPS = 1e-8


def energy_losses(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """The share of each heatmap's energy that is outside its object, `[N]` in 0..1, in float32 or better.

    It is 0, without a gradient, where the mask is empty: nothing is known of such an image.

    Args:
        heatmaps: raw maps `[N,h,w]`, signed.
        masks: `[N,H,W]` boolean, True in the boxes.

    Raises:
        ArgumentError: shapes or types do not fit.

    >>> energy_losses(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[True, False]]]))
    tensor([0.7500])
    """
    check_maps("heatmaps", heatmaps, beside=masks)
    if heatmaps.ndim != 3 or masks.ndim != 3 or masks.dtype != torch.bool or len(masks) != len(heatmaps):
        raise ArgumentError(
            "`heatmaps` must be [N,h,w] and `masks` boolean [N,H,W], one per heatmap; got "
            f"{list(heatmaps.shape)} and {list(masks.shape)} {masks.dtype}."
        )
    with full_precision(heatmaps):
        positive = heatmap.positive(heatmaps).to(torch.promote_types(heatmaps.dtype, torch.float32))
        rows, columns = (
            upsampling_matrix(cells, pixels, like=positive)
            for cells, pixels in zip(positive.shape[1:], masks.shape[1:], strict=True)
        )
        # What each cell has in the boxes once it is enlarged, so that no heatmap of the image's size is made.
        inside = rows.mT @ masks.to(positive.dtype) @ columns
        everywhere = rows.sum(0)[:, None] * columns.sum(0)
        energy = (positive * inside).sum((1, 2)) / ((positive * everywhere).sum((1, 2)) + EPS)
        return (1 - energy).where(masks.any(2).any(1), 0)
