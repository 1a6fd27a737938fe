"""Fused layers and averaged views from their definitions: one image, loops over layers, cells and views."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def fused(maps: list[Tensor], how: str) -> Tensor:
    """One map of those [h,w] of several layers, on the finest grid, with the scale of the last one's."""
    height, width = max((tuple(one.shape) for one in maps), key=math.prod)

    def resized(one: Tensor) -> Tensor:
        return F.interpolate(one[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

    peaks = [max(abs(value) for value in one.flatten().tolist()) for one in maps]
    scaled = [one / peak for one, peak in zip(maps, peaks, strict=True)]
    if how == "product":
        positive, negative = ([resized((sign * one).clamp(min=0)) for one in scaled] for sign in (1, -1))
        found = math.prod(positive) - math.prod(negative)
        return found * peaks[-1]
    if how == "layer_cam":
        scaled = [(2 * one).tanh() for one in scaled]
    scaled = [resized(one) for one in scaled]
    found = torch.zeros(height, width, dtype=maps[0].dtype)
    for i, j in itertools.product(range(height), range(width)):
        values = [float(one[i, j]) for one in scaled]
        found[i, j] = sum(values) / len(values) if how == "mean" else max(values, key=abs)
    return found * peaks[-1]


def averaged(
    image: Tensor, map_of: Callable[[Tensor], Tensor], scales: list[float], factors: list[float], *, is_density: bool
) -> Tensor:
    """The mean over flips, scales and factors of `map_of(image [1,C,H,W])` [h,w], each brought back."""
    plain, found = map_of(image), []
    for flip, scale, factor in itertools.product((False, True), [1.0, *scales], [1.0, *factors]):
        size = [round(scale * side) for side in image.shape[2:]]
        copy = factor * F.interpolate(image, size, mode="bilinear", antialias=True) if scale != 1 else factor * image
        one = map_of(copy.flip(3) if flip else copy)
        one = one.flip(1) if flip else one
        ratio = one.numel() / plain.numel() if is_density else 1.0
        found.append(ratio * F.interpolate(one[None, None], plain.shape, mode="bilinear", align_corners=False)[0, 0])
    return sum(found) / len(found)
