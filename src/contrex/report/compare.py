"""All statistics of a comparison: as a table for each family of metrics, for the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contrex.errors import ArgumentError, RecordError
from contrex.records import RunRecord
from contrex.report.cells import cell_spread, cell_value, difference_parts, heading, pieces, verdict
from contrex.report.families import families, singles
from contrex.report.groups import grouped
from contrex.report.numbers import NOTHING, count, p_text
from contrex.report.tables import Cell, Column, Comparison, MethodRow, comparison
from contrex.report.terminal import Flow, FlowLine

CAPTION = (
    "value [95 % interval], or mean ± s.d. over seeds; difference to the first [95 % interval of a paired bootstrap]; "
    "exact two-sided sign test on the common images, not corrected for the number of comparisons; * best, told apart"
)


def record_folder(path: Path) -> Path:
    """The folder of the record that `path` names: `path` itself, or the only evaluation in a run's folder.

    Raises:
        RecordError: there is no record.
        ArgumentError: there are several.
    """
    if (path / "record.json").is_file():
        return path
    folders = sorted(record.parent for record in path.glob("*/record.json"))
    if not folders:
        raise RecordError(f"no record in {path}, and no evaluation in it that has one. `contrex evaluate` writes one.")
    if len(folders) > 1:
        names = ", ".join(str(folder) for folder in folders)
        raise ArgumentError(f"{path} has {len(folders)} evaluations: name the one to compare of {names}.")
    return folders[0]


def comparison_tables(runs: Sequence[RunRecord], names: Sequence[str] = ()) -> list[Table]:
    """A table for each family of metrics, and one for the metrics that stand alone.

    For each metric and method it has the value, the difference to the first method, the sign test and the number of
    common images. `names` are what the rows are called.
    """
    table = comparison(grouped(runs, names))
    parts = {family.title: family.columns for family in families(table)}
    alone = singles(table).columns
    if alone:
        parts = {"Metrics": alone, **parts}
    tables = [_family_table(title, columns, table) for title, columns in parts.items()]
    tables[-1].caption = CAPTION
    return tables


def _family_table(title: str, columns: Sequence[Column], table: Comparison) -> Table:
    drawn = Table(title=title, title_justify="left", caption_justify="left")
    drawn.add_column("metric, method")
    for name in ("value", "difference", "sign test", "images"):
        drawn.add_column(name, justify="right")
    for column in columns:
        drawn.add_row(Text(heading(column), style="bold"))
        for row in table.rows:
            method = Padding(Flow([FlowLine(pieces(row.group.label))]), (0, 0, 0, 2))
            drawn.add_row(method, *_texts(row, column), end_section=row is table.rows[-1])
    return drawn


def _texts(row: MethodRow, column: Column) -> list[Flow | Text]:
    """The cells of one method and metric: value, difference, sign test and number of images."""
    cell = row.cells[column.name]
    if cell is None:
        return [Text("not measured", style="dim")]
    value = FlowLine([f"{cell_value(cell)}{'*' if cell.best else ''} ", cell_spread(cell)], "bold" if cell.best else "")
    return [Flow([value]), _change(cell, column), Text(_test(cell)), Text(_images(cell))]


def _change(cell: Cell, column: Column) -> Flow | Text:
    if cell.difference is None:
        return Text()
    parts = [f"{part} " for part in difference_parts(cell.difference) if part]
    judged = verdict(cell, column)
    return Flow([FlowLine([*parts, *filter(None, [judged])], {"better": "green", "worse": "red"}.get(judged, ""))])


def _test(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    signs = cell.difference.signs
    return p_text(signs.p_value) if signs is not None else NOTHING


def _images(cell: Cell) -> str:
    """The number of images behind the value, or of the pairs behind the difference."""
    if cell.difference is None:
        counted = sorted(set(cell.num_counted))
        return "\N{EN DASH}".join(map(count, (counted[0], counted[-1]) if len(counted) > 1 else counted))
    pairs = count(cell.difference.num_pairs)
    if cell.difference.over == "episodes":
        return f"{pairs} episodes"
    return pairs if cell.difference.num_pairs else "not paired"


# --- CSV ------------------------------------------------------------------------------------------------------------


def comparison_csv(runs: Sequence[RunRecord], names: Sequence[str] = ()) -> str:
    """The comparison as CSV: a row for each method and metric, unrounded; cells without a number are empty. `names` are
    what the methods are called."""
    rows = list(_rows(comparison(grouped(runs, names))))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _rows(table: Comparison) -> Iterator[dict[str, object]]:
    for column in table.columns:
        for row in table.rows:
            cell = row.cells[column.name]
            if cell is not None:
                yield {
                    "family": column.family.name,
                    "metric": column.name,
                    "unit": column.unit,
                    "higher_is_better": column.higher_is_better,
                    "method": row.group.label,
                    "runs": " ".join(run.record.name for run in row.group.runs),
                    "seeds": " ".join(map(str, row.group.seeds)),
                    **_numbers(cell),
                }


def _numbers(cell: Cell) -> dict[str, object]:
    change = cell.difference
    signs = change.signs if change is not None else None
    return {
        "value": _plain(cell.estimate.value),
        "low": "" if cell.is_aggregate else _plain(cell.estimate.low),
        "high": "" if cell.is_aggregate else _plain(cell.estimate.high),
        "std_over_seeds": _plain(cell.deviation),
        "num_counted": " ".join(map(str, cell.num_counted)),
        "num_skipped": " ".join(map(str, cell.num_skipped)),
        "difference": "" if change is None else _plain(change.estimate.value),
        "difference_low": "" if change is None else _plain(change.estimate.low),
        "difference_high": "" if change is None else _plain(change.estimate.high),
        "num_common": "" if change is None else change.num_pairs,
        "paired_over": "" if change is None or not change.num_pairs else change.over,
        "num_above": "" if signs is None else signs.num_above,
        "num_below": "" if signs is None else signs.num_below,
        "num_ties": "" if signs is None else signs.num_ties,
        "sign_test_p": "" if signs is None else _plain(signs.p_value),
    }


def _plain(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
