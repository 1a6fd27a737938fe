"""The terminal's table shows the page's numbers."""

from __future__ import annotations

import io

from rich.console import Console

from contrex.report import comparison_tables, summary_table


def printed(runs, width: int = 120, names: tuple[str, ...] = ()) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(runs, names))
    return console.export_text()


def test_values_intervals_and_differences(make_run) -> None:
    text = printed([make_run(), make_run("cgc", [51.0, 61.0, 71.0, 81.0])])
    assert "Content heatmap (%) ↑" in text
    assert "55.0 [53.0, 57.0]" in text
    assert "66.0* [64.0, 68.0]" in text
    assert "+11.0 [+11.0, +11.0]" in text


def test_square_brackets_in_names_are_no_markup(make_run) -> None:
    assert "[red]cgc[/]" in printed([make_run("[red]cgc[/]")])


def test_counts_stand_once_where_they_are_equal(make_run) -> None:
    text = printed([make_run(), make_run("cgc")])
    assert text.count("n=4") == 1
    assert "skipped" not in text
    skipping = [make_run(values=[40.0, None, 60.0, None]), make_run("cgc", [40.0, 50.0, 60.0, 80.0])]
    text = printed(skipping)
    assert "n=2, 2 skipped: all-zero map" in text
    assert "n=4" in text


def test_a_difference_on_fewer_images_says_so(make_run) -> None:
    runs = [make_run(values=[40.0, None, 60.0, 80.0]), make_run("cgc", [50.0, 51.0, 72.0, 93.0])]
    assert "on 3 common images" in " ".join(printed(runs, 200).split())
    assert "common images" not in printed([make_run(), make_run("cgc")])


def test_runs_of_other_images_are_not_paired(make_run) -> None:
    other = make_run("cgc", [80.0, 81.0, 82.0, 83.0], dataset={"name": "digits", "split": "test"})
    text = printed([make_run(dataset={"name": "digits", "split": "val"}), other])
    assert "+26.5 not paired" in text
    assert "not paired: measured on other images than the first" in " ".join(text.split())
    assert "not paired" not in printed([make_run(), make_run("cgc")])


def test_a_narrow_terminal_breaks_names_at_their_joints_and_no_interval(make_run) -> None:
    names = ("digits_cross_entropy-seed0", "digits_cgc-seed0", "digits_cgc_no_negatives-seed0")
    text = printed([make_run(name, [140.0, 150.0, 160.0, 171.5]) for name in names], 80, names)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert text.count("[153.4, 157.4]") == 3
    head = {
        word for line in lines[: lines.index(next(line for line in lines if "153.4" in line))] for word in line.split()
    }
    assert {"digits_cross_", "entropy-seed0", "digits_cgc_no_", "negatives-seed0"} <= head


def test_names_do_not_steer_the_terminal(make_run) -> None:
    runs = [make_run(), make_run("\x1b[2J\u202ecgc", [51.0, 61.0, 71.0, 81.0])]
    for drawn in (summary_table(runs), *comparison_tables(runs)):
        console = Console(width=200, file=io.StringIO())
        console.print(drawn)
        assert r"\x1b[2J\u202ecgc" in console.file.getvalue()
        assert "\x1b" not in console.file.getvalue()
