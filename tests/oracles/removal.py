"""Noisy linear imputation, one equation per missing pixel and one dense solve, in float64."""

from __future__ import annotations

import numpy as np
import torch

WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


def linear_imputation(image, removed):
    """Image [C,H,W] with its removed pixels [H,W] solved for; at least one has to be kept."""
    height, width = removed.shape
    image, removed = image.double(), removed.tolist()
    missing = [(r, c) for r in range(height) for c in range(width) if removed[r][c]]
    number = {pixel: index for index, pixel in enumerate(missing)}
    left, right = np.zeros((len(missing), len(missing))), np.zeros((len(missing), len(image)))
    values = image.numpy()
    for (r, c), row in number.items():
        for (dy, dx), weight in WEIGHTS.items():
            there = (r + dy, c + dx)
            if not (0 <= there[0] < height and 0 <= there[1] < width):
                continue
            left[row, row] += weight
            if there in number:
                left[row, number[there]] -= weight
            else:
                right[row] += weight * values[:, there[0], there[1]]
    filled = image.clone()
    if missing:
        for (r, c), value in zip(missing, torch.from_numpy(np.linalg.solve(left, right)), strict=True):
            filled[:, r, c] = value
    return filled


def road_curve(model, image, noise, saliency, step, target, *, inserting):
    """Probabilities of `target`: after s steps the most salient pixels are there (inserting) or imputed (deleting)."""
    height, width = saliency.shape
    ordered = sorted((-saliency[r, c].item(), r * width + c) for r in range(height) for c in range(width))
    points = []
    for first in [*range(0, height * width, step), height * width]:
        salient = torch.zeros(height * width, dtype=torch.bool)
        for _, pixel in ordered[:first]:
            salient[pixel] = True
        removed = (~salient if inserting else salient).view(height, width)
        if removed.all():
            filled = image.mean(dim=(1, 2), keepdim=True).expand_as(image).double() + noise
        else:
            filled = torch.where(removed, linear_imputation(image, removed) + noise, image.double())
        with torch.no_grad():
            points.append(model(filled[None])[0].softmax(dim=0)[target].item())
    return points
