"""A paper's table beside ours: both numbers, their difference, and whether the effect of a method is seen again.

The *effect* of a method is its value minus that of the method that the paper compares it with. A small experiment
cannot reach a paper's numbers, but it can show the same effects, or fail to.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from contrex.errors import ArgumentError
from contrex.records import MetricRecord, read_run, write_atomically
from contrex.report.cells import cell_count, cell_spread, cell_value, difference_parts, pieces
from contrex.report.differences import paired_difference
from contrex.report.groups import RunGroup
from contrex.report.html import render_page
from contrex.report.numbers import Estimate, decimals, interval_text, number
from contrex.report.tables import Cell, Difference, cell, paired_values
from contrex.report.terminal import Flow, FlowLine

SEEN, CONTRARY, UNCLEAR, NOT_COMPARED = "seen", "contrary", "not told apart", ""

Z = 1.96
"""Half the length of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Published:
    """A number that a paper prints, in the unit of our records. `deviation` is over `trials` runs, None if unknown."""

    value: float
    deviation: float | None = None
    trials: int = 1

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 if the paper does not say."""
        return 0.0 if self.deviation is None else self.deviation / math.sqrt(self.trials)


@dataclass(frozen=True)
class PublishedLine:
    """A line of a paper's table, and the records of the runs that repeat it, one for each seed.

    `baseline` is the position of the line that it is compared with, None for that line itself.
    """

    label: str
    numbers: Mapping[str, Published]
    records: Sequence[Path]
    baseline: int | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A paper's table, with our runs of it."""

    name: str
    title: str
    source: str
    lines: Sequence[PublishedLine]


@dataclass(frozen=True)
class PaperCell:
    """One number of a table: the paper's, ours, the difference, and the effects of the method in both."""

    label: str
    paper: Published
    ours: Cell
    difference: Estimate
    paper_effect: float | None
    effect: Difference | None
    verdict: str


@dataclass(frozen=True)
class PaperColumn:
    """One metric of a table, with a cell for each line."""

    metric: MetricRecord
    cells: Sequence[PaperCell]

    @property
    def places(self) -> int:
        """How many decimals the paper prints."""
        return max(_decimals(cell.paper.value) for cell in self.cells)


@dataclass(frozen=True)
class ComparedTable:
    """A whole table beside ours, ready to be shown."""

    published: PublishedTable
    columns: Sequence[PaperColumn]

    def count(self, verdict: str) -> int:
        """How many effects have this verdict."""
        return sum(cell.verdict == verdict for column in self.columns for cell in column.cells)


def paper_table(table: PublishedTable) -> ComparedTable:
    """The numbers of `table` beside those of our runs.

    Raises:
        ArgumentError: a record lacks a metric for which its line has a number.
        RecordError: a record cannot be read.
    """
    groups = [RunGroup(line.label, [read_run(folder) for folder in line.records]) for line in table.lines]
    names = dict.fromkeys(name for line in table.lines for name in line.numbers)
    return ComparedTable(table, [_column(table, groups, name) for name in names])


def _column(table: PublishedTable, groups: Sequence[RunGroup], name: str) -> PaperColumn:
    cells = [_cell(table, groups, place, name) for place, line in enumerate(table.lines) if name in line.numbers]
    metrics = (group.record.metric(name) for group in groups)
    return PaperColumn(next(metric for metric in metrics if metric is not None), cells)


def _cell(table: PublishedTable, groups: Sequence[RunGroup], place: int, name: str) -> PaperCell:
    line, group = table.lines[place], groups[place]
    rival = line.baseline if line.baseline is not None and name in table.lines[line.baseline].numbers else None
    ours = cell(group, group if rival is None else groups[rival], name)
    if ours is None:
        raise ArgumentError(f"`{name}` was not measured in {', '.join(map(str, line.records))}: evaluate it again.")
    paper = line.numbers[name]
    paper_effect = None if rival is None else paper.value - table.lines[rival].numbers[name].value
    verdict = judged(paper_effect, ours.difference)
    return PaperCell(line.label, paper, ours, distance(group, name, paper), paper_effect, ours.difference, verdict)


def distance(group: RunGroup, name: str, paper: Published) -> Estimate:
    """Our mean minus the paper's number, with a 95 % interval.

    The interval is a bootstrap over images and seeds; over seeds only, where the runs have no images in common; for one
    seed it is the record's own. The paper's standard error, where it is known, is added in quadrature.
    """
    values = [metric.value for run in group.runs if (metric := run.record.metric(name)) is not None]
    ours = _bootstrap(group, name, values)
    low, high = (math.hypot(end - ours.value, Z * paper.error) for end in (ours.low, ours.high))
    shift = float(np.mean(values)) - paper.value
    return Estimate(shift, shift - low, shift + high)


def _bootstrap(group: RunGroup, name: str, values: Sequence[float]) -> Estimate:
    """Our mean with its interval; for several seeds, over the images that all of them counted."""
    if len(values) == 1:
        metric = group.record.metric(name)
        return Estimate(values[0], *((metric.low, metric.high) if metric is not None else ()))
    rows = paired_values(group.runs, name)
    if rows is None or rows.shape[1] < 2:
        rows = np.array([values])
    return paired_difference(rows, np.zeros((1, rows.shape[1])))


def judged(paper_effect: float | None, effect: Difference | None) -> str:
    """The verdict on the paper's effect: "seen" or "contrary" if our interval excludes zero, else "not told apart"."""
    if not paper_effect or effect is None:
        return NOT_COMPARED
    low, high = effect.estimate.low, effect.estimate.high
    if not (low > 0 or high < 0):
        return UNCLEAR
    return SEEN if (effect.estimate.value > 0) == (paper_effect > 0) else CONTRARY


# --- texts ----------------------------------------------------------------------------------------------------------


def paper_text(paper: Published, places: int) -> str:
    """The paper's number as text, with the decimals of its column.

    >>> paper_text(Published(67.0), 2), paper_text(Published(80.09, 0.9, 3), 2)
    ('67.00', '80.09 ± 0.90')
    """
    text = number(paper.value, places)
    return text if paper.deviation is None else f"{text} \N{PLUS-MINUS SIGN} {number(paper.deviation, places)}"


def effect_text(effect: float | None, places: int) -> str:
    """The paper's effect as text with its sign; empty without one.

    >>> effect_text(16.98, 2), effect_text(None, 2)
    ('+16.98', '')
    """
    return "" if effect is None else number(effect, places, signed=True)


def _decimals(value: float) -> int:
    """How many decimals a paper printed, without the rounding errors of a changed unit.

    >>> _decimals(71.75), _decimals(72.60000000000001), _decimals(6e-05)
    (2, 1, 5)
    """
    return len(f"{round(value, 9):.9f}".rstrip("0").partition(".")[2])


def difference_texts(estimate: Estimate) -> tuple[str, str]:
    """A difference with its sign, and its interval, as texts."""
    places = decimals(estimate.half_width)
    return number(estimate.value, places, signed=True), interval_text(estimate, signed=True)


def summary_text(tables: Sequence[ComparedTable]) -> str:
    """A sentence on how many of the papers' effects are seen."""
    seen, contrary, unclear = (sum(t.count(verdict) for t in tables) for verdict in (SEEN, CONTRARY, UNCLEAR))
    total = seen + contrary + unclear
    if not total:
        return "No effect of a method can be compared: its table has no baseline among the rows that were run."
    return (
        f"Effects of methods in the paper: {total}. Seen here: {seen}; contrary: {contrary}; not told apart from none, "
        f"as the 95 % interval includes zero: {unclear}."
    )


# --- where they are shown -------------------------------------------------------------------------------------------


def write_paper_report(
    tables: Sequence[ComparedTable],
    output: Path,
    *,
    title: str,
    scale: str,
    notes: Mapping[str, Sequence[str]],
    commands: Sequence[str],
    pages: Mapping[str, str],
) -> Path:
    """Write one self-contained page with the tables, and return its path.

    `notes` say, by heading, what does not follow the paper. `commands` are those that made the runs, and `pages` are
    links to files beside the page.
    """
    content: dict[str, Any] = {
        "tables": tables,
        "scale": scale,
        "notes": notes,
        "commands": commands,
        "pages": pages,
        "summary": summary_text(tables),
        "paper_text": paper_text,
        "effect_text": effect_text,
        "difference_texts": difference_texts,
        "difference_parts": difference_parts,
    }
    page = render_page("papers.html.j2", title=title, **content)
    write_atomically(output, page.encode(errors="replace"))
    return output


def paper_terminal(table: ComparedTable) -> list[Table]:
    """The tables for the terminal, one for each metric."""
    return [_terminal(table, column) for column in table.columns]


def _terminal(table: ComparedTable, column: PaperColumn) -> Table:
    unit = f" ({column.metric.unit})" if column.metric.unit else ""
    drawn = Table(title=f"{table.published.name}: {column.metric.title}{unit}", title_justify="left")
    drawn.add_column("row")
    for name in ("paper", "ours", "ours - paper", "effect, paper", "effect, ours", ""):
        drawn.add_column(name, justify="right")
    for one in column.cells:
        change = FlowLine([f"{part} " for part in difference_texts(one.difference) if part])
        effect = [f"{part} " for part in difference_parts(one.effect)] if one.effect is not None else []
        drawn.add_row(
            Flow([FlowLine(pieces(one.label))]),
            paper_text(one.paper, column.places),
            Flow([FlowLine([f"{cell_value(one.ours)} ", cell_spread(one.ours)])]),
            Flow([change]),
            effect_text(one.paper_effect, column.places),
            Flow([FlowLine(effect or [""])]),
            Text(one.verdict, style={SEEN: "green", CONTRARY: "red"}.get(one.verdict, "dim")),
        )
    return drawn


def paper_csv(tables: Sequence[ComparedTable]) -> str:
    """The tables as CSV: a row for each number, unrounded; cells without a number are empty."""
    rows = list(_rows(tables))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["table"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _rows(tables: Sequence[ComparedTable]) -> Iterator[dict[str, object]]:
    for table in tables:
        for column in table.columns:
            for one in column.cells:
                effect = Estimate(math.nan) if one.effect is None else one.effect.estimate
                yield {
                    "table": table.published.name,
                    "row": one.label,
                    "metric": column.metric.name,
                    "unit": column.metric.unit,
                    "paper": repr(one.paper.value),
                    "paper_std": "" if one.paper.deviation is None else repr(one.paper.deviation),
                    "ours": _plain(one.ours.estimate.value),
                    "ours_std_over_seeds": _plain(one.ours.deviation),
                    "difference": _plain(one.difference.value),
                    "difference_low": _plain(one.difference.low),
                    "difference_high": _plain(one.difference.high),
                    "paper_effect": "" if one.paper_effect is None else repr(one.paper_effect),
                    "effect": _plain(effect.value),
                    "effect_low": _plain(effect.low),
                    "effect_high": _plain(effect.high),
                    "verdict": one.verdict,
                    "counted": cell_count(one.ours),
                }


def _plain(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""
