"""Equivariance error: whether the heatmap moves with the image, for crops of growing strength.

Axes: N images, h w heatmap cells, S side of the image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite
from contrex.ops import geometry
from contrex.ops.enlarged import Enlarged, positive_similarity, transformed_matrices, upsampling_matrices
from contrex.ops.geometry import Crop


def equivariance_similarity(
    heatmaps: Tensor, moved_heatmaps: Tensor, crops: Crop, *, size: int | tuple[int, int]
) -> Tensor:
    """Cosine similarity of the transformed heatmap and the heatmap of the transformed image; the error is `1 -` it.

    `cos_n = <T_n(g(x_n)), g(T_n(x_n))> / (|T_n(g(x_n))| |g(T_n(x_n))|)`, both maps as if at `size`: upsampled
    bilinearly (`align_corners=False`), the first then cropped, resized and flipped like the image. No large map is
    made; the products are exact (`contrex.ops.enlarged`).

    It is the positive similarity of CGC (Pillai et al., CVPR 2022, section 3.1) without its ReLU and eps, and what
    Crabbe and van der Schaar (NeurIPS 2023) call explanation equivariance. *Deviation* from the latter: their T is a
    symmetry of the network, one that leaves its output as it is; a crop is not quite one, so a network that rightly
    sees something else in a small crop pays for it here.

    Args:
        heatmaps: `[N,h,w]` of the images as they are. Signed maps are compared signed: rectify both for positive
            evidence only.
        moved_heatmaps: `[N,h,w]` of the transformed images (`warp_images`), for the same classes.
        crops: the N transforms, in pixels of their own `size`.
        size: S, or height and width, at which the maps are compared; the image's.

    Returns:
        float64 `[N]` in -1..1, on the heatmaps' device; NaN where a map is zero everywhere, or zero inside the crop.

    Raises:
        ArgumentError: shapes do not match, a map is not finite, `size` is not positive, or a crop leaves the image.

    >>> heatmap, mirrored = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> flip = Crop(*(torch.tensor([v]) for v in (0, 0, 8, 8, True)), size=8)
    >>> equivariance_similarity(heatmap, mirrored, flip, size=8)
    tensor([1.0000], dtype=torch.float64)
    """
    _check(heatmaps, moved_heatmaps, crops)
    sides = (size, size) if isinstance(size, int) else size
    if min(sides) < 1:
        raise ArgumentError(f"`size` must be at least 1 pixel on each side, got {sides}.")
    cells, moved_cells = _of_unit_scale(heatmaps), _of_unit_scale(moved_heatmaps)
    rows, columns = upsampling_matrices(cells, sides)
    ones = torch.ones(len(cells), dtype=torch.float64, device=cells.device)
    moved_afterwards = Enlarged(cells, *transformed_matrices(rows, columns, crops, sides), ones)
    moved_before = Enlarged(moved_cells, rows[None], columns[None], ones)
    # Rounding can make a cosine of equal maps larger than 1, which the metric would refuse.
    return positive_similarity(moved_afterwards, moved_before).clamp(-1, 1)


def crop_of_strength(
    num_samples: int,
    size: int | tuple[int, int],
    *,
    share: float,
    flip: bool = False,
    generator: np.random.Generator,
) -> Crop:
    """N crops that keep `share` of the image's area, with its aspect ratio, at places drawn from `generator`.

    Height and width are `sqrt(share)` of the image's, rounded to pixels; the corner is uniform over where it fits.
    All crops are mirrored if `flip` is set, so that strength is one number and chance only moves the place.

    Args:
        num_samples: N.
        size: of the image, (H, W) or a square.
        share: in 0..1, not 0; 1 without a flip changes nothing, an error of 0.
        flip: mirror each crop from left to right.
        generator: one for the batch, or one call per image with its own.

    Raises:
        ArgumentError: `share` is not in 0..1, or is 0.

    >>> crop = crop_of_strength(1, (100, 60), share=0.25, generator=np.random.default_rng(0))
    >>> crop.height, crop.width, crop.flip
    (tensor([50]), tensor([30]), tensor([False]))
    """
    if not 0 < share <= 1:
        raise ArgumentError(f"`share` must be a share of the area above 0 and at most 1, got {share}.")
    height, width = (size, size) if isinstance(size, int) else size
    aspect = width / height
    return geometry.random_crop(
        num_samples, size, scale=(share, share), ratio=(aspect, aspect), flip=float(flip), generator=generator
    )


class EquivarianceError(PerSampleMetric):
    """Mean of `1 - equivariance_similarity` for crops of one strength, 0..2; lower is better.

    Named by the share of the area in percent: `equivariance_error_40`, `equivariance_error_40_flip`.

    >>> metric = EquivarianceError(share=0.4)
    >>> metric.update(torch.tensor([1.0, 0.5, torch.nan]))
    >>> metric.name, metric.compute()
    ('equivariance_error_40', tensor(0.2500, dtype=torch.float64))
    """

    skip_reason = "an empty heatmap (zero everywhere, or inside the crop)"
    higher_is_better = False

    def __init__(self, share: float, *, flip: bool = False) -> None:
        percent = round(100 * share)
        if not 1 <= percent <= 100 or abs(percent - 100 * share) > 1e-9:
            raise ArgumentError(f"`share` must be a whole percentage of the area between 0.01 and 1, got {share}.")
        self.share, self.flip = share, flip
        self.name = f"equivariance_error_{percent}" + ("_flip" if flip else "")
        self.title = f"Equivariance error, {percent} % crop" + (" and flip" if flip else "")
        super().__init__()

    def update(self, similarities: Tensor) -> None:
        """Count `similarities [N]`, NaN for skipped images.

        Raises:
            ArgumentError: they are not `[N]`, or one is outside -1..1.
        """
        if similarities.ndim != 1:
            raise ArgumentError(f"`similarities` must be [N], one per image, got {list(similarities.shape)}.")
        outside = similarities.abs() > 1
        if outside.any():
            index = int(outside.nonzero()[0])
            raise ArgumentError(
                f"`similarities` must be cosines in -1..1, got {float(similarities[index]):g} at index {index}."
            )
        self.append(1 - similarities.double())


def _of_unit_scale(heatmaps: Tensor) -> Tensor:
    """The maps divided by their largest absolute values, in float64, so that squares neither overflow nor vanish; zero
    maps stay as they are."""
    cells = heatmaps.detach().double()
    largest = cells.abs().amax(dim=(1, 2), keepdim=True)
    return cells / largest.where(largest > 0, 1.0)


def _check(heatmaps: Tensor, moved_heatmaps: Tensor, crops: Crop) -> None:
    if heatmaps.ndim != 3 or heatmaps.shape != moved_heatmaps.shape or heatmaps.numel() == 0:
        raise ArgumentError(
            "`heatmaps` and `moved_heatmaps` must have one shape [N,h,w] with N >= 1, "
            f"got {list(heatmaps.shape)} and {list(moved_heatmaps.shape)}."
        )
    for name, maps in (("heatmaps", heatmaps), ("moved_heatmaps", moved_heatmaps)):
        check_finite(name, maps)
    if len(crops) != len(heatmaps):
        raise ArgumentError(f"`crops` must hold one transform per heatmap, {len(heatmaps)}; got {len(crops)}.")
    crops.check()
