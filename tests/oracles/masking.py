"""Masking protocols, the mirrored blur and relative probability by loops over pixels, in float64."""

from __future__ import annotations

import copy
import math

import torch


def ranks(values):
    """Of each value its place from the lowest on, equal ones in their order."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    return [order.index(i) for i in range(len(values))]


def kept(values, other, sign, protocol):
    """Which of a flat list of values are kept."""

    def count(numbers):
        return sum(v > 0 if sign == "positive" else v < 0 for v in numbers)

    if protocol == "paper":
        return [v > 0 if sign == "positive" else v < 0 for v in values]
    own, rival, total = count(values), count(other), len(values)
    if protocol == "same-area":
        signed = [-v for v in values] if sign == "positive" else values
        return [rank < min(own, rival) for rank in ranks(signed)]
    if sign == "positive":
        return [rank >= min(own, rival) for rank in ranks(values)]
    return [rank <= total - max(own, rival) for rank in ranks(values)]


def blur(channel, sigma, kernel_size):
    """A 2-D list under a truncated Gaussian, mirrored at the borders as often as needed."""
    margin = kernel_size // 2
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-margin, margin + 1)]

    def mirrored(position, size):
        while not 0 <= position < size:
            position = -position if position < 0 else 2 * (size - 1) - position
            if size == 1:
                position = 0
        return position

    height, width = len(channel), len(channel[0])
    result = [[0.0] * width for _ in range(height)]
    for r in range(height):
        for c in range(width):
            for i, down in enumerate(weights):
                for j, along in enumerate(weights):
                    source = channel[mirrored(r + i - margin, height)][mirrored(c + j - margin, width)]
                    result[r][c] += down * along * source / sum(weights) ** 2
    return result


def upsampled(heatmap, height, width):
    """Bilinear with the corner cells on the corner pixels."""
    cells_down, cells_along = len(heatmap), len(heatmap[0])

    def place(position, size, cells):
        source = position * (cells - 1) / (size - 1) if size > 1 else 0.0
        low = min(math.floor(source), cells - 1)
        return low, min(low + 1, cells - 1), source - low

    result = []
    for r in range(height):
        top, bottom, down = place(r, height, cells_down)
        row = []
        for c in range(width):
            left, right, along = place(c, width, cells_along)
            above = (1 - along) * heatmap[top][left] + along * heatmap[top][right]
            below = (1 - along) * heatmap[bottom][left] + along * heatmap[bottom][right]
            row.append((1 - down) * above + down * below)
        result.append(row)
    return result


def relative_probability(logits, target, top2):
    """`exp(y_t) / (exp(y_t1) + exp(y_t2))`."""
    return math.exp(logits[target]) / sum(math.exp(logits[c]) for c in top2)


def masked_relative_probability(model, image, heatmap, other, target, top2, sign, protocol, baseline):
    """Of one image `[C,H,W]` and one class, the maps as nested lists at layer size."""
    model = copy.deepcopy(model).double().eval()
    height, width = image.shape[1:]
    flat, rival = ([v for row in upsampled(m, height, width) for v in row] for m in (heatmap, other))
    mask = kept(flat, rival, sign, protocol)
    frame = baseline.double().clone()
    for pixel in range(height * width):
        if mask[pixel]:
            frame[:, pixel // width, pixel % width] = image[:, pixel // width, pixel % width].double()
    with torch.no_grad():
        logits = model(frame[None])[0].tolist()
    return relative_probability(logits, target, top2)
