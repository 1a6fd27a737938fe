"""GCC (AAAI 2021) by loops: the grid of a composite pixel by pixel, its target map cell by cell."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8


def composite(view: Tensor, partners: Tensor, cell: int) -> Tensor:
    """One composite [3,2S,2S] of a view [3,S,S] in `cell` and partners [3,3,S,S] in the other cells, in their order."""
    side = view.shape[1]
    rest = list(partners)
    grid = torch.empty(view.shape[0], 2 * side, 2 * side, dtype=view.dtype)
    for place in range(4):
        image = view if place == cell else rest.pop(0)
        for y in range(side):
            for x in range(side):
                grid[:, place // 2 * side + y, place % 2 * side + x] = image[:, y, x]
    return grid


def normalised(heatmap: Tensor) -> Tensor:
    """Positive part, divided by its sum."""
    positive = heatmap.clamp(min=0)
    return positive / (positive.sum() + EPS) + EPS


def loss(heatmaps: Tensor, heatmaps_composite: Tensor, cells: list[int]) -> Tensor:
    """Mean absolute difference over all cells of all maps."""
    num, height, width = heatmaps.shape
    total = heatmaps.new_zeros(())
    for i, cell in enumerate(cells):
        own, found = normalised(heatmaps[i]), normalised(heatmaps_composite[i])
        for y in range(2 * height):
            for x in range(2 * width):
                is_own = (y // height, x // width) == divmod(cell, 2)
                wanted = own[y % height, x % width] if is_own else 0.0
                total = total + (found[y, x] - wanted).abs()
    return total / (num * 4 * height * width)
