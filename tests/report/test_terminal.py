"""The terminal's table shows the page's numbers."""

from __future__ import annotations

import io

from rich.console import Console

from contrex.report import summary_table


def printed(runs) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(runs))
    return console.export_text()


def test_values_intervals_and_differences(make_run) -> None:
    text = printed([make_run(), make_run("cgc", [51.0, 61.0, 71.0, 81.0])])
    assert "Content heatmap (%) ↑" in text
    assert "55.0 [53.0,\N{NO-BREAK SPACE}57.0]" in text
    assert "66.0* [64.0,\N{NO-BREAK SPACE}68.0]" in text
    assert "+11.0 [+11.0,\N{NO-BREAK SPACE}+11.0]" in text


def test_square_brackets_in_names_are_no_markup(make_run) -> None:
    assert "[red]cgc[/]" in printed([make_run("[red]cgc[/]")])
