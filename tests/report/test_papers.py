"""The papers' numbers beside ours: distances, effects, and where they are shown."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from contrex.errors import ArgumentError
from contrex.records import write_run
from contrex.report.groups import RunGroup
from contrex.report.numbers import Estimate
from contrex.report.papers import (
    CONTRARY,
    SEEN,
    UNCLEAR,
    Published,
    PublishedLine,
    PublishedTable,
    distance,
    judged,
    paper_csv,
    paper_table,
    paper_terminal,
    summary_text,
    write_paper_report,
)
from contrex.report.tables import Difference

BASE, BETTER = [40.0, 50.0, 60.0, 70.0], [52.0, 63.0, 71.0, 83.0]


def line(folder, run, paper, baseline=None):
    write_run(folder, run)
    return PublishedLine(run.record.name, {"content_heatmap": paper}, [folder], baseline)


@pytest.fixture
def table(tmp_path, make_run):
    """A baseline and a method that is better by 12.25 here and by 16.98 in the paper."""
    return PublishedTable(
        "cgc-table1",
        "ImageNet <b>",
        "Pillai et al., Table 1",
        [
            line(tmp_path / "a", make_run("cross_entropy", BASE), Published(54.77)),
            line(tmp_path / "b", make_run("cgc", BETTER), Published(71.75), baseline=0),
        ],
    )


def test_distance_of_one_run_has_its_interval(make_run):
    found = distance(RunGroup("one", [make_run(values=BASE)]), "content_heatmap", Published(50.0))
    assert (found.value, found.low, found.high) == pytest.approx((5.0, 3.0, 7.0))


def test_the_papers_own_error_widens_the_interval(make_run):
    found = distance(RunGroup("one", [make_run(values=BASE)]), "content_heatmap", Published(50.0, 0.9, trials=3))
    half = math.hypot(2.0, 1.96 * 0.9 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((5.0 - half, 5.0 + half))


def test_distance_of_several_seeds_covers_images_and_seeds(make_run):
    """Seeds that are 20 apart must widen the interval beyond what four images do."""
    runs = [make_run(values=[value + shift for value in BASE]) for shift in (-10.0, 10.0)]
    found = distance(RunGroup("two", runs), "content_heatmap", Published(50.0))
    alone = distance(
        RunGroup("two", [make_run(values=BASE), make_run(values=BASE)]), "content_heatmap", Published(50.0)
    )
    assert found.value == pytest.approx(5.0)
    assert found.high - found.low > 1.3 * (alone.high - alone.low) > 10


def test_distance_without_samples_is_over_seeds(make_run):
    """Other images in each run, as episodes have: only the runs' means can be resampled."""
    runs = [make_run(values=BASE, paths=[f"{number}/{path}" for path in "abcd"]) for number in range(3)]
    found = distance(RunGroup("three", runs), "content_heatmap", Published(50.0))
    assert (found.value, found.low, found.high) == pytest.approx((5.0, 5.0, 5.0))


@pytest.mark.parametrize(
    ("paper", "ours", "expected"),
    [
        (16.98, (12.0, 9.0, 15.0), SEEN),
        (-3.4, (12.0, 9.0, 15.0), CONTRARY),
        (-3.4, (-1.0, -2.0, -0.1), SEEN),
        (16.98, (12.0, -1.0, 25.0), UNCLEAR),
        (16.98, (12.0, math.nan, math.nan), UNCLEAR),
        (None, (12.0, 9.0, 15.0), ""),
        (0.0, (12.0, 9.0, 15.0), ""),
    ],
)
def test_an_effect_is_judged_by_its_interval(paper, ours, expected):
    assert judged(paper, Difference(Estimate(*ours), 4)) == expected


def test_effects_are_differences_to_the_baseline_of_the_line(table):
    column = paper_table(table).columns[0]
    first, second = column.cells
    assert (first.paper_effect, first.effect, first.verdict) == (None, None, "")
    assert second.paper_effect == pytest.approx(16.98)
    assert second.effect.estimate.value == pytest.approx(12.25)
    assert (second.verdict, second.difference.value) == (SEEN, pytest.approx(67.25 - 71.75))


def test_a_line_without_the_metric_is_refused(tmp_path, make_run, table):
    wrong = PublishedTable("t", "t", "t", [PublishedLine("cgc", {"top1": Published(1.0)}, [tmp_path / "a"])])
    with pytest.raises(ArgumentError, match=r"`top1` was not measured in .*a: evaluate it again"):
        paper_table(wrong)


def test_page_terminal_and_numbers_show_the_same(tmp_path, table):
    found = paper_table(table)
    page = write_paper_report(
        [found],
        tmp_path / "page.html",
        title="Table <1>",
        scale="scale tiny",
        notes={"The paper": ["leaves <i>open</i>"]},
        commands=["contrex reproduce cgc-table1"],
        pages={"runs": "runs.html"},
    ).read_text()
    assert all(text in page for text in ("54.77", "71.75", "+16.98", "seen", "leaves &lt;i&gt;open", "Table &lt;1&gt;"))
    assert "<script" not in page
    console = Console(record=True, width=160)
    for drawn in paper_terminal(found):
        console.print(drawn)
    shown = console.export_text()  # which empties the record
    assert all(text in shown for text in ("71.75", "+16.98", "seen"))
    rows = list(csv.DictReader(io.StringIO(paper_csv([found]))))
    assert [(row["row"], row["paper"], row["verdict"]) for row in rows] == [
        ("cross_entropy", "54.77", ""),
        ("cgc", "71.75", "seen"),
    ]
    assert summary_text([found]).startswith("Effects of methods in the paper: 1. Seen here: 1; contrary: 0;")
