"""CGC (CVPR 2022, section 3.1) by the published route: upsample, normalise, crop, resize, flip, cosine."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8


def enlarged(heatmap: Tensor, size: tuple[int, int]) -> Tensor:
    """ReLU, bilinear upsampling, division by the sum: one map [h,w] at image size."""
    large = F.interpolate(heatmap.clamp(min=0)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return large / (large.sum() + EPS) + EPS


def cropped(large: Tensor, top: int, left: int, height: int, width: int, flip: bool) -> Tensor:
    """Cut out at integer pixels, resize back, mirror."""
    cut = large[top : top + height, left : left + width]
    view = F.interpolate(cut[None, None], large.shape, mode="bilinear", align_corners=False)[0, 0]
    return view.flip(1) if flip else view


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of two maps."""
    return (a * b).sum() / (a.norm() * b.norm())


def cgc_losses(
    heatmaps: Tensor,
    heatmaps_view: Tensor,
    boxes: list[tuple[int, int, int, int, bool]],
    *,
    size: tuple[int, int],
    temperature: float,
    variant: str,
    extra: Tensor | None = None,
) -> Tensor:
    """`L_i` for every i, by loops."""
    queries = [cropped(enlarged(h, size), *box) for h, box in zip(heatmaps, boxes, strict=True)]
    keys = [enlarged(h, size) for h in heatmaps_view]
    further = [enlarged(h, size) for h in extra] if extra is not None else []
    losses = []
    for i, (query, key) in enumerate(zip(queries, keys, strict=True)):
        positive = cosine(query, key) / temperature
        anchor = query if variant == "paper" else key
        others = [cosine(anchor, k) / temperature for k in [*keys[:i], *keys[i + 1 :], *further]]
        losses.append(torch.stack([positive, *others]).logsumexp(0) - positive)
    return torch.stack(losses)


def l2_loss(
    heatmaps: Tensor, heatmaps_view: Tensor, boxes: list[tuple[int, int, int, int, bool]], size: tuple[int, int]
) -> Tensor:
    """Mean squared distance of the normalised positive pairs."""
    distances = []
    for h, v, box in zip(heatmaps, heatmaps_view, boxes, strict=True):
        query, key = cropped(enlarged(h, size), *box), enlarged(v, size)
        distances.append(((query / query.norm() - key / key.norm()) ** 2).sum())
    return torch.stack(distances).mean()


def uniform_loss(num_candidates: int) -> float:
    """The loss when nothing distinguishes the candidates."""
    return math.log(num_candidates)
