"""Content heatmap by loops over pixels, in float64."""

from __future__ import annotations

import math


def resized_value(heatmap: list[list[float]], row: int, column: int, height: int, width: int) -> float:
    """One pixel of the bilinear resize (half-pixel centres, edges repeated) of the rectified `heatmap`."""

    def neighbours(position: int, size: int, cells: int) -> tuple[int, int, float]:
        source = min(max((position + 0.5) * cells / size - 0.5, 0.0), cells - 1.0)
        low = math.floor(source)
        return low, min(low + 1, cells - 1), source - low

    top, bottom, down = neighbours(row, height, len(heatmap))
    left, right, along = neighbours(column, width, len(heatmap[0]))
    return sum(
        weight * max(heatmap[r][c], 0.0)
        for r, c, weight in [
            (top, left, (1 - down) * (1 - along)),
            (top, right, (1 - down) * along),
            (bottom, left, down * (1 - along)),
            (bottom, right, down * along),
        ]
    )


def content_heatmap(heatmap, boxes, image_size) -> float:
    """The share in % of one map inside the union of `boxes`; NaN where it is undefined."""
    height, width = image_size
    total = inside = 0.0
    for row in range(height):
        for column in range(width):
            value = resized_value(heatmap, row, column, height, width)
            total += value
            x, y = column + 0.5, row + 0.5
            if any(xmin <= x < xmax and ymin <= y < ymax for xmin, ymin, xmax, ymax in boxes):
                inside += value
    return 100 * inside / total if total > 0 and len(boxes) else math.nan
