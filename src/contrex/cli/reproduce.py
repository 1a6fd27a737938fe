"""The command `reproduce`, which runs the papers' tables again."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from contrex import settings
from contrex.cli.options import Arguments, console, named_data_sets, parsed
from contrex.errors import ArgumentError

if TYPE_CHECKING:
    from contrex.reproduce import Order

TINY = settings.Model("contrex:convnet")


@dataclass(frozen=True)
class Reproduce:
    """Run tables of the papers again: train and measure every row with every seed, and show the numbers side by side.

    Work that is already done is kept. --data PREFIX:PATH names a data set that the tables need; it may be repeated.
    """

    tables: tyro.conf.Positional[tuple[str, ...]]
    """Tables, such as cgc-table5, excon-table1a or contrast-table2, or all tables of a paper: cgc."""
    scale: Literal["paper", "tiny"] = "paper"
    """`paper` has the paper's networks, data and epochs; `tiny` is the same experiment with a small network on the
    built-in digits, or on the one data set that --data names."""
    rows: tuple[str, ...] = ()
    """Only the rows with these names, in which * stands for anything. If none are given, all rows."""
    data: settings.Data | None = None
    weights: Path | None = None
    """The folder with the weights files that rows start from, under the names in the recipes."""
    model: settings.Model = field(default_factory=lambda: TINY)
    """The network for the scale tiny."""
    seeds: int | None = None
    """Runs of each row. None is the paper's number of trials, or one at the scale tiny."""
    epochs: int | None = None
    """Epochs of each run; None is the recipe's number."""
    limit: int | None = None
    """Measure on this many images only, spread evenly over the classes."""
    workers: int | None = None
    """Loader processes; None is the recipe's number."""
    device: str = "auto"
    jobs: int = 1
    """Processes that share the runs."""
    folder: Path = Path("runs/reproduce")
    """The folder for runs and pages; what is there is continued."""
    plan: bool = False
    """Only print the commands, the numbers of images and the time needed, from a trial of ten steps of each row."""


def reproduce(arguments: Arguments) -> int:
    """Run tables of the papers again and put our numbers beside theirs."""
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    if not names and not any(word in ("-h", "--help") for word in arguments):
        _list_tables()
        raise ArgumentError("name a table or more before the options: contrex reproduce cgc-table5 --scale tiny")
    given, rest = named_data_sets(arguments)
    one = given[0] if len(given) == 1 else None
    options = parsed(Reproduce, "reproduce", rest, default=Reproduce(tuple(names), data=one))
    from contrex.reproduce import ordered, planned, reproduce

    order = _order(options, given)
    folder = options.folder if options.scale == "paper" else options.folder / "tiny"
    if options.plan:
        print("\n".join(planned(ordered(order), folder).lines()))
        return 0
    result = reproduce(order, folder, console=console(), jobs=options.jobs)
    from rich.console import Console

    from contrex.report.papers import paper_terminal, summary_text

    for table in result.tables:
        for drawn in paper_terminal(table):
            Console().print(drawn)
    print(f"{summary_text(result.tables)}\nreport: {result.page}\nnumbers: {result.csv}\nruns: {result.runs}")
    return 0


def _order(options: Reproduce, given: list[settings.Data]) -> Order:
    from contrex.recipes.tables import TITLES, tables_named
    from contrex.reproduce import Order

    names = [
        name
        for asked in options.tables
        for name in ([n for n in TITLES if n.rpartition("-table")[0] == asked] or [asked])
    ]
    return Order(
        tables_named(tuple(names), options.rows),
        scale=options.scale,
        data=tuple(given) if options.data is None else (options.data,),
        model=None if options.model == TINY else options.model,
        weights=options.weights,
        seeds=options.seeds,
        epochs=options.epochs,
        limit=options.limit,
        workers=options.workers,
        device=options.device,
    )


def _list_tables() -> None:
    from contrex.recipes.tables import TITLES

    print("usage: contrex reproduce TABLE ... [--scale tiny] [--data PREFIX:PATH ...] [--plan]\n")
    width = max(map(len, TITLES))
    for name, title in TITLES.items():
        print(f"  {name:{width}}  {title}")
    print()
