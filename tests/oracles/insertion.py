"""Insertion and deletion curves, one image and one pixel at a time, in float64."""

from __future__ import annotations

import copy
import itertools

import torch


def curve(model, image, saliency, step, start, end, target):
    """Probabilities [S+1] of `target` while pixels of `start` become those of `end`, the most salient first."""
    model = copy.deepcopy(model).double().eval()
    height, width = saliency.shape
    pixels = [(-saliency[r, c].item(), r * width + c) for r in range(height) for c in range(width)]
    frame, points = start.double().clone(), []
    queue = sorted(pixels)
    while True:
        with torch.no_grad():
            points.append(model(frame[None]).softmax(dim=1)[0, target].item())
        if not queue:
            return points
        for _, pixel in queue[:step]:
            frame[:, pixel // width, pixel % width] = end[:, pixel // width, pixel % width].double()
        queue = queue[step:]


def insertion_curve(model, image, saliency, step, baseline, target):
    return curve(model, image, saliency, step, baseline, image, target)


def deletion_curve(model, image, saliency, step, baseline, target):
    return curve(model, image, saliency, step, image, baseline, target)


def area(points) -> float:
    """Trapezoid area with equally spaced points over 0..1."""
    return sum((a + b) / 2 for a, b in itertools.pairwise(points)) / (len(points) - 1)
