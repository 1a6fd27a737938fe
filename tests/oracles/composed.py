"""ADCC and ARCC from the equations of Poppi et al. (2021) and Domeniconi et al. (2026), image by image with numpy."""

from __future__ import annotations

import numpy as np
import torch

from oracles import removal


def unit(heatmap, size):
    """A CAM: rectified, upsampled, stretched to 0..1."""
    positive = heatmap.double().clamp(min=0)[None, None]
    large = torch.nn.functional.interpolate(positive, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return (large - large.min()) / (large.max() - large.min())


def coherency(first, second):
    return (1 + np.corrcoef(first.ravel(), second.ravel())[0, 1]) / 2


def complexity(cam):
    return np.abs(cam).sum() / cam.size


def harmonic(*parts):
    return len(parts) / sum(1 / part for part in parts)


def road(model, image, saliency, target, fractions, noise):
    """The mean over fractions of the probability without the least salient pixels, less that without the most."""
    height, width = saliency.shape
    order = sorted((-saliency[r, c].item(), r * width + c) for r in range(height) for c in range(width))
    found = []
    for fraction in fractions:
        num = round(fraction * height * width)
        for some, sign in ((order[-num:], 1), (order[:num], -1)):
            removed = torch.zeros(height * width, dtype=torch.bool)
            removed[[pixel for _, pixel in some]] = True
            imputed = removal.linear_imputation(image, removed.view(height, width)) + noise
            changed = torch.where(removed.view(height, width), imputed.to(image), image)
            found.append(sign * float(model(changed[None]).softmax(1)[0, target]))
    return sum(found) / len(fractions)
