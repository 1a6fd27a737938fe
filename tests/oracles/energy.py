"""The energy loss (Rao et al., ICCV 2023): the heatmap enlarged, then summed pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8


def energy_loss(heatmap: Tensor, boxes: list[list[float]], size: tuple[int, int]) -> Tensor:
    """`1 - inside / all` of one map [h,w], of the pixels whose centre is in a box; 0 without boxes."""
    large = torch.nn.functional.interpolate(heatmap.clamp(min=0)[None, None], size, mode="bilinear")[0, 0]
    inside = torch.zeros((), dtype=large.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            if any(left <= x + 0.5 < right and top <= y + 0.5 < bottom for left, top, right, bottom in boxes):
                inside = inside + large[y, x]
    return 1 - inside / (large.sum() + EPS) if boxes else torch.zeros((), dtype=large.dtype)


def moved_box(box: list[float], crop: tuple[int, int, int, int, bool], side: int) -> list[float]:
    """A box as a crop (top, left, height, width, flip) of a square shows it, cut at its borders."""
    top, left, height, width, flip = crop
    edges = [(box[0] - left) * side / width, (box[2] - left) * side / width]
    edges = [side - edges[1], side - edges[0]] if flip else edges
    rows = [(box[1] - top) * side / height, (box[3] - top) * side / height]
    x0, x1, y0, y1 = (min(max(edge, 0), side) for edge in (*edges, *rows))
    return [x0, y0, x1, y1]
