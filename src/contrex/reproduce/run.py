"""Carrying out an order, or going on with it, and writing the page with the paper's numbers and ours."""

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
from contrex.records import read_run, write_atomically
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
    """The results: the tables, the page that shows them, their numbers as CSV, and the page of the runs."""

    tables: Sequence[ComparedTable]
    page: Path
    csv: Path
    runs: Path


def reproduce(order: Order, folder: Path, *, console: Console, jobs: int = 1) -> Reproduction:
    """Train what is not trained yet, measure what is not measured yet, and write the pages.

    Several processes may share the runs, and `jobs` starts some here (`contrex.experiment.carry_out`). Errors are those
    of `ordered`, of training and of evaluating.
    """
    prepared = ordered(order)
    records = _measure(prepared, folder, console, jobs)
    name = "+".join(table.name for table in order.tables)
    tables = [paper_table(_published(table, prepared, records)) for table in order.tables]
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
                notes={**prepared.notes, **_of_versions(records)},
                commands=[command_line()] if command_line() else [],
                pages={"The runs side by side": result.runs.name, "The numbers as CSV": result.csv.name},
            )
    return result


def _measure(prepared: Ordered, folder: Path, console: Console, jobs: int) -> list[list[list[Path]]]:
    """Carry out all works; return the folders of the records, as [work][way of measuring][seed]."""
    ways = [[(measured.evaluation, measured.data) for measured in work.measurements] for work in prepared.works]
    tasks = [Task(recipe, own) for work, own in zip(prepared.works, ways, strict=True) for recipe in work.recipes()]
    done = iter(carry_out(tasks, folder, console=console, jobs=jobs))
    of_works = [[next(done) for _ in work.recipes()] for work in prepared.works]
    return [[list(records) for records in zip(*of_seeds, strict=True)] for of_seeds in of_works]


def _of_versions(records: Sequence[Sequence[Sequence[Path]]]) -> dict[str, list[str]]:
    """A note where records are of other versions of the software than the rest: work that is done is not done again."""
    runs = (read_run(record).record for ways in records for way in ways for record in way)
    found = sorted({f"contrex {run.versions.get('contrex')}, torch {run.versions.get('torch')}" for run in runs})
    return (
        {"Versions": [f"Records are of {'; '.join(found)}. Of one they are in another --folder."]} if found[1:] else {}
    )


def _published(table: PaperTable, prepared: Ordered, records: Sequence[Sequence[Sequence[Path]]]) -> PublishedTable:
    """The paper's table, with the records of our runs for each line."""
    lines = table.lines

    def line(one: TableLine) -> PublishedLine:
        work, way = prepared.places[table.name, one]
        numbers = {n.column: _number(n) for n in table.numbers if TableLine(n.row, n.measured) == one}
        rival = table.baseline(one)
        baseline = None if rival is None else lines.index(rival)
        return PublishedLine(_label(one), numbers, records[work][way], baseline)

    return PublishedTable(table.name, table.title, table.source, [line(one) for one in lines])


def _number(number: Number) -> Published:
    value, deviation = number.in_our_unit
    return Published(value, deviation, trials(number.row))


def _label(line: TableLine) -> str:
    """The name of a line: its row, and how or on which data it is measured, if the table says so."""
    fields: Mapping[str, str] = dict(line.measured.fields)
    words = [fields[name] for name in ("explainer", "contrast") if name in fields]
    return " ".join([line.row, *words]) if line.measured.data is None else f"{line.row} on {line.measured.data}"
