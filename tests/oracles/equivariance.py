"""Cosine similarity of two maps at image size: upsample, crop, resize, flip, multiply pixel by pixel."""

from __future__ import annotations

import math

from torch.nn.functional import interpolate

from oracles.consistency import cropped


def similarity(heatmap, moved_heatmap, box, size):
    """`cos(T(g(x)), g(T(x)))` of one pair of maps [h,w]; `box` is (top, left, height, width, flip) in whole pixels."""
    large, moved = (
        interpolate(one[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0]
        for one in (heatmap, moved_heatmap)
    )
    large = cropped(large, *box)
    inner = norm = moved_norm = 0.0
    for a, b in zip(large.flatten().tolist(), moved.flatten().tolist(), strict=True):
        inner += a * b
        norm += a * a
        moved_norm += b * b
    return inner / math.sqrt(norm * moved_norm)
