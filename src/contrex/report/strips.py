"""The little interval drawing in a table cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contrex.report.tables import Column, Comparison, Row


@dataclass(frozen=True)
class Strip:
    """Where value and interval lie between the smallest and the largest end of the column, in per cent of the width."""

    low: float
    value: float
    high: float


def strip(table: Comparison, column: Column, row: Row) -> Strip | None:
    """The drawing of one cell, None when the cell has no interval."""
    ends = [end for other in table.rows for end in _ends(other, column)]
    mine = _ends(row, column)
    cell = row.cells[column.name]
    if cell is None or not mine or max(ends) == min(ends):
        return None
    low, value, high = (
        (end - min(ends)) / (max(ends) - min(ends)) * 100 for end in (mine[0], cell.estimate.value, mine[1])
    )
    return Strip(low, value, high)


def _ends(row: Row, column: Column) -> list[float]:
    cell = row.cells[column.name]
    ends = [cell.estimate.low, cell.estimate.high] if cell is not None else []
    return ends if all(map(math.isfinite, ends)) else []
