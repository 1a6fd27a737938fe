"""How far long work is: a bar with the time left for a terminal, a line at each tenth for a file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from contrex.errors import printable

WIDEST, NARROWEST = 24, 10
"""Columns of a terminal that the bar itself takes."""


class Bar:
    """The progress of one piece of work; its `total` may be known only once it has begun."""

    def __init__(self, console: Console, name: str, total: int | None, done: int) -> None:
        self.name, self.total, self.done = printable(name), total, done
        self.words: Sequence[str] = ()
        self._console, self._first, self._began = console, done, time.monotonic()

    def step(self, terms: Mapping[str, float]) -> None:
        """Count one step, and show its terms, such as losses."""
        self.words = [f"{name} {value:.3f}" for name, value in terms.items()]
        self.at(self.done + 1, self.total)

    def at(self, done: int, total: int | None) -> None:
        """Take in that `done` of `total` is done, and print a line for each tenth where there is no terminal."""
        before, self.done, self.total = self.done, done, total
        if total and not self._console.is_terminal and 10 * done // total > 10 * before // total:
            line = ", ".join([f"{self.name}: {100 * done // total} % ({done}/{total})", self.left, *self.words])
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @property
    def left(self) -> str:
        """How long the rest will take, at the pace so far."""
        if self.total is None or self.done == self._first:
            return "-:--:-- left"
        pace = (time.monotonic() - self._began) / (self.done - self._first)
        return f"{timedelta(seconds=round(pace * (self.total - self.done)))} left"

    def parts(self, width: int) -> tuple[str, int, str]:
        """What stands in a line of `width` columns: the name, the columns of the bar, and the rest.

        Steps and the time left always stand there. Terms come while there is room, and a long name is cut.
        """
        total = "?" if self.total is None else str(self.total)
        rest = f"{self.done:>{len(total)}}/{total} {self.left}"
        name = Text(self.name)
        name.truncate(max(width - cell_len(rest) - NARROWEST - 2, 1), overflow="ellipsis")
        room = width - cell_len(name.plain) - cell_len(rest) - 2
        bar = max(min(room, WIDEST), 1)
        for word in self.words:
            if bar + 2 + cell_len(word) > room:
                break
            rest, room = f"{rest}  {word}", room - 2 - cell_len(word)
        return name.plain, bar, rest


class _Line(ProgressColumn):
    """The whole line of a bar."""

    def __init__(self, bar: Bar, console: Console) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._bar, self._console = bar, console

    def render(self, task: Task) -> Table:
        name, width, rest = self._bar.parts(self._console.width)
        line = Table.grid(padding=(0, 1, 0, 0))
        drawn = ProgressBar(total=self._bar.total, completed=self._bar.done, width=width, pulse=self._bar.total is None)
        line.add_row(Text(name, style="bold", no_wrap=True), drawn, Text(rest, no_wrap=True))
        return line


@contextmanager
def progress_bar(name: str, *, total: int | None = None, done: int = 0, console: Console) -> Iterator[Bar]:
    """A `Bar` of work of which `done` is done already, drawn while the work goes on where there is a terminal."""
    bar = Bar(console, name, total, done)
    with Progress(_Line(bar, console), console=console, disable=not console.is_terminal) as progress:
        progress.add_task("", total=None)  # the line asks the bar itself
        yield bar
