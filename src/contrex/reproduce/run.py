"""Running an order, or going on with it, and the page with the paper's numbers and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from contrex import ranks
from contrex.evaluation.subject import command_line
from contrex.experiment import Task, carry_out
from contrex.recipes.published import Number
from contrex.recipes.tables import PaperTable, TableLine, trials
from contrex.records import write_atomically
from contrex.report import write_report
from contrex.report.papers import (
    ComparedTable,
    Published,
    PublishedLine,
    PublishedTable,
    paper_csv,
    paper_table,
    write_paper_report,
)
from contrex.reproduce.order import Order, Ordered, ordered


@dataclass(frozen=True)
class Reproduction:
    """What came out: the tables, the page that shows them, their numbers as CSV, and the page of the runs."""

    tables: Sequence[ComparedTable]
    page: Path
    csv: Path
    runs: Path


def reproduce(order: Order, folder: Path, *, console: Console, jobs: int = 1) -> Reproduction:
    """Train what is not trained yet, measure what is not measured yet, and write the pages.

    Several processes may share the runs, `jobs` of them started here (`contrex.experiment.carry_out`).
    Raises what `ordered` raises, and what training and evaluating raise.
    """
    found = ordered(order)
    records = _measured(found, folder, console, jobs)
    name = "+".join(table.name for table in order.tables)
    tables = [paper_table(_published(table, found, records)) for table in order.tables]
    result = Reproduction(tables, folder / f"{name}.html", folder / f"{name}.csv", folder / f"{name}-runs.html")
    with ranks.together():
        if ranks.rank() == 0:
            write_report([path for work in records for path in work[0]], result.runs, title=name)
            write_atomically(result.csv, paper_csv(tables).encode())
            write_paper_report(
                tables,
                result.page,
                title=order.tables[0].title if len(order.tables) == 1 else " · ".join(t.name for t in order.tables),
                scale=f"scale {order.scale}",
                notes=found.notes,
                commands=[command_line()] if command_line() else [],
                pages={"The runs side by side": result.runs.name, "The numbers as CSV": result.csv.name},
            )
    return result


def _measured(found: Ordered, folder: Path, console: Console, jobs: int) -> list[list[list[Path]]]:
    """The folders of the records: of each work, of each way of measuring, one for each seed."""
    ways = [[(measured.evaluation, measured.data) for measured in work.measurements] for work in found.works]
    tasks = [Task(recipe, own) for work, own in zip(found.works, ways, strict=True) for recipe in work.recipes()]
    done = iter(carry_out(tasks, folder, console=console, jobs=jobs))
    of_works = [[next(done) for _ in work.recipes()] for work in found.works]
    return [[list(records) for records in zip(*of_seeds, strict=True)] for of_seeds in of_works]


def _published(table: PaperTable, found: Ordered, records: Sequence[Sequence[Sequence[Path]]]) -> PublishedTable:
    """The table with the records of its lines."""
    lines = table.lines

    def line(one: TableLine) -> PublishedLine:
        work, way = found.places[table.name, one]
        numbers = {n.column: _number(n) for n in table.numbers if TableLine(n.row, n.measured) == one}
        rival = table.baseline(one)
        baseline = None if rival is None else lines.index(rival)
        return PublishedLine(_label(one), numbers, records[work][way], baseline)

    return PublishedTable(table.name, table.title, table.source, [line(one) for one in lines])


def _number(number: Number) -> Published:
    value, deviation = number.in_our_unit
    return Published(value, deviation, trials(number.row))


def _label(line: TableLine) -> str:
    """The row, and how it is measured where its table has it measured in several ways."""
    fields: Mapping[str, str] = dict(line.measured.fields)
    words = [fields[name] for name in ("explainer", "contrast") if name in fields]
    return " ".join([line.row, *words]) if line.measured.data is None else f"{line.row} on {line.measured.data}"
