"""Gradient sign perturbation of one image, pixel by pixel, with gradients by finite differences, in float64."""

from __future__ import annotations

import copy
import math

import torch


def logits_of(model, images, mean, std):
    """Logits (a list for each) of images in 0..1, `[C,H,W]`."""
    normalised = [[(channel - m) / s for channel, m, s in zip(x, mean, std, strict=True)] for x in images]
    with torch.no_grad():
        return model(torch.stack([torch.stack(channels) for channels in normalised])).tolist()


def score(logits, target, contrast):
    others = [y for k, y in enumerate(logits) if k != target]
    return (
        logits[target]
        - {
            None: 0.0,
            "mean": sum(others) / len(others),
            "max": max(others),
            "weighted": math.log(sum(math.exp(y) for y in others)),
        }[contrast]
    )


def gradient(model, pixels, target, contrast, mean, std, small=1e-6):
    """Central differences with respect to the image in 0..1."""
    result = torch.zeros_like(pixels)
    moved = []
    for index in range(pixels.numel()):
        for step in (small, -small):
            moved.append(pixels.clone())
            moved[-1].view(-1)[index] += step
    values = [score(logits, target, contrast) for logits in logits_of(model, moved, mean, std)]
    for index in range(pixels.numel()):
        result.view(-1)[index] = (values[2 * index] - values[2 * index + 1]) / (2 * small)
    return result


def perturbed(model, pixels, target, contrast, epsilon, num_steps, mean, std, clamp):
    """`x_n`: each step clamped to the epsilon ball and, if asked for, to 0..1."""
    model = copy.deepcopy(model).double().eval()
    current = pixels.clone()
    for _ in range(num_steps):
        phi = gradient(model, current, target, contrast, mean, std)
        for index in range(pixels.numel()):
            moved = current.view(-1)[index].item() + epsilon / num_steps * math.copysign(1, phi.view(-1)[index].item())
            start = pixels.view(-1)[index].item()
            moved = min(max(moved, start - epsilon), start + epsilon)
            current.view(-1)[index] = min(max(moved, 0.0), 1.0) if clamp else moved
    return current


def changes(model, pixels, label, target, contrast, epsilon, num_steps, mean, std, clamp):
    """Whether it was right, whether it is, and the changes of `y_t` and `p_t`."""
    model = copy.deepcopy(model).double().eval()
    end = perturbed(model, pixels, target, contrast, epsilon, num_steps, mean, std, clamp)
    before, after = logits_of(model, [pixels, end], mean, std)
    right = [float(max(range(len(y)), key=y.__getitem__) == label) for y in (before, after)]
    probs = [math.exp(y[target]) / sum(map(math.exp, y)) for y in (before, after)]
    return right[0], right[1], after[target] - before[target], probs[1] - probs[0]
