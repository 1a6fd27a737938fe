"""The grid pointing game, one cell of the heatmap at a time."""

from __future__ import annotations

from fractions import Fraction


def share(heatmap, cell, size):
    """The share in % of the positive heat of one map [h,w] in cell `cell` of `size` x `size` ones, by areas."""
    height, width = heatmap.shape
    row, column = divmod(cell, size)

    def common(start, end, low, high):
        return max(Fraction(0), min(end, high) - max(start, low))

    inside = total = 0.0
    for r in range(height):
        for c in range(width):
            value = max(float(heatmap[r, c]), 0.0)
            part = common(Fraction(r, height), Fraction(r + 1, height), Fraction(row, size), Fraction(row + 1, size))
            part *= common(
                Fraction(c, width), Fraction(c + 1, width), Fraction(column, size), Fraction(column + 1, size)
            )
            inside += value * float(part * height * width)
            total += value
    return 100 * inside / total if total else float("nan")
