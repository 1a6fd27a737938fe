"""Pointing games by loops over pixels, in float64."""

from __future__ import annotations

import math

from oracles.content_heatmap import resized_value


def resized(heatmap, image_size):
    height, width = image_size
    return [[resized_value(heatmap, r, c, height, width) for c in range(width)] for r in range(height)]


def on_object(row, column, boxes):
    return any(xmin <= column + 0.5 < xmax and ymin <= row + 0.5 < ymax for xmin, ymin, xmax, ymax in boxes)


def is_hit(row, column, boxes, image_size, tolerance):
    """Whether an object pixel is this one or closer than `tolerance`."""
    if on_object(row, column, boxes):
        return True
    height, width = image_size
    return any(
        math.dist((r, c), (row, column)) < tolerance
        for r in range(height)
        for c in range(width)
        if on_object(r, c, boxes)
    )


def pointing_game(heatmap, boxes, image_size, tolerance):
    """100 or 0; NaN where it is undefined."""
    values = resized(heatmap, image_size)
    largest = max(map(max, values))
    if largest <= 0 or not len(boxes):
        return math.nan
    row, column = next(
        (r, c) for r, line in enumerate(values) for c, value in enumerate(line) if value >= largest * (1 - 1e-9)
    )
    return 100.0 * is_hit(row, column, boxes, image_size, tolerance)


def expected_share(heatmap, boxes, image_size, tolerance):
    """The expected value of the stochastic game, in %."""
    values = resized(heatmap, image_size)
    height, width = image_size
    hits = [[is_hit(r, c, boxes, image_size, tolerance) for c in range(width)] for r in range(height)]
    near = sum(values[r][c] for r in range(height) for c in range(width) if hits[r][c])
    return 100.0 * near / sum(map(sum, values))


def drawn(heatmap, image_size, shares):
    """The pixels whose part of the cumulated heatmap the `shares` fall into."""
    values = resized(heatmap, image_size)
    flat = [value for line in values for value in line]
    points = []
    for share in shares:
        left = share * sum(flat)
        for pixel, value in enumerate(flat):
            left -= value
            if left < 0:
                points.append((pixel // image_size[1], pixel % image_size[1]))
                break
    return points
