"""The comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from contrex.records import RunRecord
from contrex.report.cells import cell_spread, cell_value, difference_parts, heading
from contrex.report.groups import grouped
from contrex.report.tables import Cell, comparison


def summary_table(runs: Sequence[RunRecord]) -> Table:
    """Metrics x methods, which fits a terminal: each value with its interval and the difference to the first run.

    The same numbers as the page's.
    """
    found = comparison(grouped(runs))
    table = Table(
        caption="value [95 % interval] or mean ± s.d. over seeds; below it the difference to the first; * best"
    )
    table.add_column("metric")
    for row in found.rows:
        table.add_column(Text(row.group.label), justify="right", overflow="fold")
    for column in found.columns:
        table.add_row(Text(heading(column)), *(_text(row.cells[column.name]) for row in found.rows))
    return table


def _text(cell: Cell | None) -> Text:
    if cell is None:
        return Text("not measured", style="dim")
    value = f"{cell_value(cell)}{'*' if cell.best else ''} {_unbroken(cell_spread(cell))}"
    text = Text(value, style="bold" if cell.best else "")
    if cell.difference is not None:
        text.append(f"\n{' '.join(map(_unbroken, difference_parts(cell.difference)))}", style="not bold dim")
    return text


def _unbroken(interval: str) -> str:
    """An interval goes to the next line whole."""
    return interval.replace(" ", "\N{NO-BREAK SPACE}")
