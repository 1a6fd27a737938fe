"""IDSDS, one cell at a time: the rank correlation of heat with what a deletion costs (Hesse et al. 2024)."""

from __future__ import annotations

import torch

from oracles.randomization import spearman


def score(model, image, saliency, target, grid, baseline):
    """The correlation over the cells of one image [C,H,W]."""
    height, width = saliency.shape
    heat, change = [], []
    before = float(model(image[None])[0, target])
    for row in range(grid):
        for column in range(grid):
            rows = [r for r in range(height) if r * grid // height == row]
            columns = [c for c in range(width) if c * grid // width == column]
            state = image.clone()
            for r in rows:
                for c in columns:
                    state[:, r, c] = baseline[:, r, c]
            heat.append(sum(float(saliency[r, c]) for r in rows for c in columns))
            change.append(before - float(model(state[None])[0, target]))
    return spearman(torch.tensor(heat, dtype=torch.float64), torch.tensor(change, dtype=torch.float64))
