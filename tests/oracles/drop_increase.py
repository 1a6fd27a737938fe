"""Drop and increase, one image and one pixel at a time, in float64."""

from __future__ import annotations

import copy

import torch


def kept_probability(model, image, saliency, fraction, target, baseline):
    """Probability of `target` when all but the `floor(fraction H W)` most salient pixels come from the baseline."""
    model = copy.deepcopy(model).double().eval()
    height, width = saliency.shape
    pixels = sorted((-saliency[r, c].item(), r * width + c) for r in range(height) for c in range(width))
    state = baseline.double().clone()
    for _, pixel in pixels[: int(fraction * height * width)]:
        r, c = divmod(pixel, width)
        state[:, r, c] = image[:, r, c].double()
    with torch.no_grad():
        return model(state[None]).softmax(dim=1)[0, target].item()


def change(name, before, after):
    """One of the four measures of one image, from its two probabilities."""
    if name == "drop_percent":
        return 100.0 if after < before else 0.0
    if name == "increase_percent":
        return 100.0 if after > before else 0.0
    difference = before - after if name == "drop_magnitude" else after - before
    return max(0.0, difference) / before
