"""Contrastive Grad-CAM consistency (Pillai et al., CVPR 2022, section 3.1) without full-size heatmaps.

For images x_i with spatial transforms T_i, heatmaps g and query / key maps

    q_i = T_i(g(x_i)),    k_i = g(T_i(x_i)),

    L_i = -log( exp(sim(q_i, k_i) / tau) / sum_j exp(sim(q_i, k_j) / tau) )          sim = cosine similarity

The paper compares maps at image size: ReLU, bilinear upsampling to S x S, division by the sum (+ eps), + eps at every
pixel, T, cosine. All of it but the ReLU is linear and separable, so the cosines come from products of h x h matrices
and no S x S map is ever made (`contrex.ops.enlarged`). The eps stays exact, and gives an all-zero map its meaning,
the uniform map.

The published code differs (`variant="published-code"`): the anchor is k_i, its positive q_i, and its negatives are the
other k_j - transformed against transformed. Both take the mean over i where the paper writes a sum, so that lambda
means the same at any batch size.

Legend: N anchors, h w heatmap cells, S side of the upsampled map (S_y, S_x when not square), Q extra negatives.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.losses.inputs import check_maps
from contrex.ops import heatmap
from contrex.ops.enlarged import (
    Enlarged,
    positive_similarity,
    similarity,
    transformed_matrices,
    upsampling_matrices,
)
from contrex.ops.geometry import Crop

EPS = 1e-8
"""Added to the sum that a map is divided by, and to every pixel afterwards, as in the published code."""

Size = int | tuple[int, int]
Variant = Literal["paper", "published-code"]


def cgc_loss(
    heatmaps: Tensor,
    heatmaps_view: Tensor,
    crop: Crop,
    *,
    temperature: float = 0.5,
    size: Size = 224,
    variant: Variant = "paper",
    extra_negatives: Tensor | None = None,
) -> Tensor:
    """Contrastive Grad-CAM consistency, the mean of `L_i` over the batch (CVPR 2022, eq. 1).

    Args:
        heatmaps: `[N,h,w]`, raw maps of the untransformed images at layer size (the loss takes their positive part).
        heatmaps_view: `[N,h,w]`, raw maps of the transformed images, for the same classes.
        crop: the N transforms, in pixels of their own `crop.size`.
        temperature: tau.
        size: S, the side (or height and width) at which the paper compares the maps; its input size.
        variant: `"paper"`, or `"published-code"` for its anchors and negatives.
        extra_negatives: `[Q,h,w]` raw maps of other transformed images that only enter the denominators.

    Returns:
        A scalar. With N = 1 and no extra negatives it is 0 (and so is its gradient). All-zero maps count as uniform.
        NaN in a map gives NaN, which the training loop reports with the image it came from.

    Raises:
        ArgumentError: shapes or devices do not match, maps are not floating point, `temperature` or `size` is not
            positive, or `crop` leaves the image.

    >>> maps = torch.rand(4, 7, 7)
    >>> crop = Crop.identity(4, 224)
    >>> bool(cgc_loss(maps, maps, crop) < cgc_loss(maps, maps.flip(0), crop))
    True
    """
    return cgc_losses(
        heatmaps,
        heatmaps_view,
        crop,
        temperature=temperature,
        size=size,
        variant=variant,
        extra_negatives=extra_negatives,
    ).mean()


def cgc_losses(
    heatmaps: Tensor,
    heatmaps_view: Tensor,
    crop: Crop,
    *,
    temperature: float = 0.5,
    size: Size = 224,
    variant: Variant = "paper",
    extra_negatives: Tensor | None = None,
) -> Tensor:
    """The loss `L_i` of every anchor, `[N]`; arguments and errors are those of `cgc_loss`."""
    if not temperature > 0:
        raise ArgumentError(f"`temperature` must be positive, got {temperature}.")
    _check(heatmaps, heatmaps_view, crop)
    with full_precision(heatmaps):
        query, key = _query_and_key(heatmaps, heatmaps_view, crop, size)
        if variant == "paper":
            candidates = similarity(query, _appended(key, extra_negatives))
            positive = torch.arange(len(query), device=heatmaps.device)
        elif variant == "published-code":
            others = similarity(key, _appended(key, extra_negatives))
            # A map is no negative of itself.
            others = others.masked_fill(_diagonal(others), float("-inf"))
            candidates = torch.cat([positive_similarity(query, key)[:, None], others], 1)
            positive = torch.zeros(len(query), dtype=torch.long, device=heatmaps.device)
        else:
            raise unknown_name("`variant`", variant, ("paper", "published-code"))
        return F.cross_entropy(candidates / temperature, positive, reduction="none")


def l2_consistency_loss(
    heatmaps: Tensor, heatmaps_view: Tensor, crop: Crop, *, size: Size = 224, variant: Variant = "paper"
) -> Tensor:
    """Consistency without negatives, the mean of `|| q_i / |q_i| - k_i / |k_i| ||^2` (CVPR 2022, Table 5).

    The squared distance of two unit vectors is `2 - 2 sim(q_i, k_i)`. `variant="published-code"` averages over the
    S x S pixels as well (`mse_loss`), which at S = 224 makes the term 50,176 times smaller.

    Arguments, shapes and errors as in `cgc_loss`.
    """
    _check(heatmaps, heatmaps_view, crop)
    with full_precision(heatmaps):
        query, key = _query_and_key(heatmaps, heatmaps_view, crop, size)
        distance = (2 - 2 * positive_similarity(query, key)).mean()
    if variant == "paper":
        return distance
    if variant == "published-code":
        return distance / query.num_pixels
    raise unknown_name("`variant`", variant, ("paper", "published-code"))


def full_precision(heatmaps: Tensor) -> torch.autocast:
    """Switch autocast off: in bfloat16 the small matrices would lose what nearly equal maps differ by."""
    return torch.autocast(heatmaps.device.type, enabled=False)


def _query_and_key(heatmaps: Tensor, heatmaps_view: Tensor, crop: Crop, size: Size) -> tuple[Enlarged, Enlarged]:
    """The maps q and k of the whole batch, in float32 or better."""
    sides = (size, size) if isinstance(size, int) else size
    if min(sides) < 1:
        raise ArgumentError(f"`size` must be at least 1 pixel on each side, got {sides}.")
    dtype = torch.promote_types(heatmaps.dtype, torch.float32)
    cells, cells_view = (heatmap.positive(maps).to(dtype) for maps in (heatmaps, heatmaps_view))
    rows, columns = upsampling_matrices(cells, sides)
    moved = transformed_matrices(rows, columns, crop, sides)
    query = Enlarged(cells, *moved, _sum_scale(cells, rows, columns), EPS)
    return query, Enlarged(cells_view, rows[None], columns[None], _sum_scale(cells_view, rows, columns), EPS)


def _sum_scale(cells: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The scale of each map, `1 / (sum over pixels of the upsampled map + eps)`, [N]: before T, as in the paper."""
    return 1 / (torch.einsum("h,nhw,w->n", rows.sum(0), cells, columns.sum(0)) + EPS)


def _appended(key: Enlarged, extra: Tensor | None) -> Enlarged:
    """The keys, followed by the extra negatives as further keys."""
    if extra is None:
        return key
    check_maps("extra_negatives", extra, key.cells)
    if extra.ndim != 3 or extra.shape[1:] != key.cells.shape[1:]:
        raise ArgumentError(
            f"`extra_negatives` must be [Q,{key.cells.shape[1]},{key.cells.shape[2]}] like the heatmaps, "
            f"got {list(extra.shape)}."
        )
    cells = heatmap.positive(extra).to(key.cells)
    scale = _sum_scale(cells, key.rows[0], key.columns[0])
    return Enlarged(torch.cat([key.cells, cells]), key.rows, key.columns, torch.cat([key.scale, scale]), EPS)


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)


def _check(heatmaps: Tensor, heatmaps_view: Tensor, crop: Crop) -> None:
    check_maps("heatmaps", heatmaps)
    check_maps("heatmaps_view", heatmaps_view, heatmaps)
    if heatmaps.ndim != 3 or heatmaps.shape != heatmaps_view.shape or heatmaps.numel() == 0:
        raise ArgumentError(
            f"`heatmaps` and `heatmaps_view` must have one shape [N,h,w] with N >= 1, "
            f"got {list(heatmaps.shape)} and {list(heatmaps_view.shape)}."
        )
    if not isinstance(crop, Crop):
        raise ArgumentError(f"`crop` must be a contrex.ops.geometry.Crop, got {type(crop).__name__}.")
    if len(crop) != len(heatmaps):
        raise ArgumentError(f"`crop` must hold one transform per heatmap, {len(heatmaps)}; got {len(crop)}.")
    crop.check()
