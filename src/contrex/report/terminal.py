"""The comparison of runs as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from contrex.errors import printable
from contrex.records import RunRecord
from contrex.report.cells import (
    cell_count,
    cell_spread,
    cell_value,
    difference_parts,
    heading,
    pairing,
    pieces,
    shared_count,
)
from contrex.report.groups import grouped
from contrex.report.tables import Cell, comparison

CAPTION = "value [95 % interval] or mean ± s.d. over seeds; below it the difference to the first; * best, told apart"
UNPAIRED = "not paired: measured on other images than the first, or in another way, so the difference has no interval"


def summary_table(runs: Sequence[RunRecord], names: Sequence[str] = ()) -> Table:
    """The table of `runs` for a terminal: each value with its interval, and the difference to the first run.

    `names` are what the methods are called. The numbers are those of the page. How many images were counted and skipped
    stands below the metric; where methods differ in it, it stands in their cells.
    """
    compared = comparison(grouped(runs, names))
    cells = [cell for row in compared.rows for cell in row.cells.values() if cell is not None]
    is_unpaired = any(cell.difference is not None and not cell.difference.num_pairs for cell in cells)
    table = Table(caption=f"{CAPTION}; {UNPAIRED}" if is_unpaired else CAPTION)
    table.add_column("metric")
    for row in compared.rows:
        table.add_column(Flow([FlowLine(pieces(row.group.label))]), justify="right")
    for column in compared.columns:
        shared = shared_count(compared.cells(column.name))
        title = Text(heading(column)).append(f"\n{shared}" if shared else "", style="dim")
        table.add_row(title, *(_flow(row.cells[column.name], counted=not shared) for row in compared.rows))
    return table


def _flow(cell: Cell | None, *, counted: bool) -> Flow:
    if cell is None:
        return Flow([FlowLine(["not measured"], "dim")])
    lines = [
        FlowLine([f"{cell_value(cell)}{'*' if cell.best else ''} ", cell_spread(cell)], "bold" if cell.best else "")
    ]
    if cell.difference is not None:
        parts = [f"{part} " for part in difference_parts(cell.difference) if part]
        lines.append(FlowLine([*parts, *pieces(pairing(cell))], "dim"))
    if cell.verdict:
        lines.append(FlowLine(pieces(f"verdict: {cell.verdict}"), "dim"))
    if counted:
        lines.append(FlowLine(pieces(cell_count(cell)), "dim"))
    return Flow(lines)


@dataclass(frozen=True)
class FlowLine:
    """A line of text in pieces, between which it may break."""

    pieces: Sequence[str]
    style: str = ""


@dataclass(frozen=True)
class Flow:
    """Lines that break between their pieces and nowhere else, so that intervals and words stay whole."""

    lines: Sequence[FlowLine]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max(len(piece.rstrip()) for line in self.lines for piece in line.pieces)
        return Measurement(longest, max(len("".join(line.pieces).rstrip()) for line in self.lines))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield Text(printable("\n".join(_filled(line.pieces, options.max_width))), style=line.style)


def _filled(pieces: Sequence[str], width: int) -> list[str]:
    """The pieces in lines of at most `width`, in as few lines as possible.

    >>> _filled(["no_", "negatives-", "seed0"], 14)
    ['no_negatives-', 'seed0']
    """
    lines = [""]
    for piece in pieces:
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
