"""What survived what: a table at the end of `make test-survival`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Tally:
    """Trials and how many of them survived, by what was done to them."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, int]] = {}

    @contextmanager
    def counting(self, what: str) -> Iterator[list[bool]]:
        """A list to put one outcome for each trial into; when the block fails, all of them are lost."""
        outcomes: list[bool] = []
        self.rows[what] = (0, 0)
        ended_well = False
        try:
            yield outcomes
            ended_well = True
        finally:
            self.rows[what] = (len(outcomes), sum(outcomes) if ended_well else 0)

    def lines(self) -> list[str]:
        """A Markdown table."""
        head = ["| what was done | trials | survived | lost |", "|---|---|---|---|"]
        return head + [
            f"| {what} | {trials} | {kept} | {trials - kept} |" for what, (trials, kept) in self.rows.items()
        ]


TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.rows:
        terminalreporter.section("trials, survived, lost")
        terminalreporter.write_line("\n".join(TALLY.lines()))
