"""The small drawings of intervals in table cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.report.tables import Cell


@dataclass(frozen=True)
class Strip:
    """The positions of value and interval, in per cent of the width that holds all compared intervals."""

    low: float
    value: float
    high: float


def strips(cells: Sequence[Cell | None]) -> list[Strip | None]:
    """The drawings of `cells` on one scale; None where a cell has no interval."""
    ends = [end for cell in cells for end in _ends(cell)]
    if not ends or max(ends) == min(ends):
        return [None] * len(cells)
    scale = 100 / (max(ends) - min(ends))
    return [
        Strip(*((end - min(ends)) * scale for end in (own[0], cell.estimate.value, own[1])))
        if cell is not None and (own := _ends(cell))
        else None
        for cell in cells
    ]


def _ends(cell: Cell | None) -> list[float]:
    ends = [cell.estimate.low, cell.estimate.high] if cell is not None else []
    return ends if all(map(math.isfinite, ends)) else []
