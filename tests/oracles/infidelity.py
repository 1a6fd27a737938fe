"""Infidelity and max-sensitivity, one image, one sample and one pixel at a time, in float64."""

from __future__ import annotations

import copy
import math

import torch


def infidelity(model, image, attribution, perturbations, target, *, output, normalise):
    """Yeh et al. (2019), section 2, as a mean over the given perturbations `[S,C,H,W]`."""
    model = copy.deepcopy(model).double().eval()
    image, attribution, perturbations = image.double(), attribution.double(), perturbations.double()

    def f(x):
        with torch.no_grad():
            logits = model(x[None])[0]
        return (logits if output == "logit" else logits.softmax(dim=0))[target].item()

    pairs = []
    for change in perturbations:
        product = 0.0
        for c in range(image.shape[0]):
            for row in range(image.shape[1]):
                for column in range(image.shape[2]):
                    phi = attribution[row, column] if attribution.ndim == 2 else attribution[c, row, column]
                    product += change[c, row, column].item() * phi.item()
        pairs.append((product, f(image) - f(image - change)))
    scale = 1.0
    if normalise:
        denominator = sum(a * a for a, _ in pairs)
        scale = sum(a * b for a, b in pairs) / denominator if denominator else 0.0
    return sum((scale * a - b) ** 2 for a, b in pairs) / len(pairs)


def max_sensitivity(explain, image, perturbations):
    """Yeh et al. (2019), section 3, over the norm of the heatmap, from the given perturbations `[S,C,H,W]`."""
    heatmap = explain(image[None])[0].flatten().tolist()
    largest = 0.0
    for change in perturbations:
        other = explain((image + change)[None])[0].flatten().tolist()
        largest = max(largest, math.sqrt(sum((a - b) ** 2 for a, b in zip(other, heatmap, strict=True))))
    norm = math.sqrt(sum(a * a for a in heatmap))
    return largest / norm if norm else math.nan
