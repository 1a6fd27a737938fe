"""The comparison in full: tables for the terminal, and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from contrex.errors import ArgumentError, RecordError
from contrex.records import write_run
from contrex.report import comparison_csv, comparison_tables, record_folder
from contrex.report.groups import grouped
from contrex.report.tables import comparison


def printed(runs, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in comparison_tables(runs):
        console.print(table)
    return console.export_text()


def rows(runs) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(comparison_csv(runs))))


def test_value_difference_sign_test_and_common_images(make_run) -> None:
    runs = [make_run(values=[40.0, 50.0, 60.0, None]), make_run("cgc", [51.0, 61.0, 59.0, 81.0])]
    text = printed(runs)
    (line,) = [line for line in text.splitlines() if " cgc " in line]
    # two of three common images above: 2 (1 + 3) / 8 = 1; the interval holds zero, so there is no star
    assert re.search(r"63\.0 \[61\.0, 65\.0\] .*\+7 \[.*\] .* p = 1 .* 3 ", line)
    assert "Content heatmap (%) ↑" in text
    assert "sign test" in text


def test_the_sign_test_drops_ties(make_run) -> None:
    runs = [make_run(values=[40.0] * 4), make_run("cgc", [40.0, 41.0, 42.0, 43.0])]
    (_, other) = rows(runs)
    assert (other["num_above"], other["num_below"], other["num_ties"]) == ("3", "0", "1")
    assert float(other["sign_test_p"]) == pytest.approx(0.25)


def test_the_sign_test_of_seeds_takes_each_image_s_mean(make_run) -> None:
    values = [[41.0, 40.0, 39.5, 45.0], [39.0, 41.0, 40.6, 45.0]]  # means 40, 40.5, 40.05, 45
    seeds = [make_run(f"cgc-seed{s}", v, seed=s) for s, v in enumerate(values)]
    (_, other) = rows([make_run("ce", [40.0, 40.5, 40.0, 40.0]), *seeds])
    assert (other["num_above"], other["num_below"], other["num_ties"]) == ("2", "0", "2")
    assert other["seeds"] == "0 1"
    assert float(other["std_over_seeds"]) > 0
    assert (other["low"], other["high"]) == ("", "")


def test_shares_of_one_number_have_no_sign_test(make_run) -> None:
    runs = [make_run(), make_run("cgc", [50.0, 51.0, 62.0, 73.0])]
    for run in runs:
        run.record.metrics[:] = [replace(m, name="ece", per_image="shares") for m in run.record.metrics]
        run.samples.values["ece"] = run.samples.values["content_heatmap"]
    cell = comparison(grouped(runs)).rows[1].cells["ece"]
    assert cell is not None
    assert cell.difference is not None
    assert cell.difference.num_pairs == 4
    assert cell.difference.signs is None
    assert rows(runs)[1]["sign_test_p"] == ""


def test_other_images_have_neither_interval_nor_sign_test(make_run) -> None:
    runs = [make_run(), make_run("cgc", [80.0] * 4, paths=["a", "b", "c", "d"])]
    assert "not paired" in printed(runs)
    (_, other) = rows(runs)
    assert (other["difference"], other["num_common"]) == ("25.0", "0")
    assert other["difference_low"] == other["sign_test_p"] == ""


def test_csv_is_unrounded_and_its_numbers_are_the_table_s(make_run) -> None:
    runs = [make_run(), make_run("cgc, best", [50.0, 51.123456789, 62.0, 73.0])]
    found = rows(runs)
    cell = comparison(grouped(runs)).rows[1].cells["content_heatmap"]
    assert [row["method"] for row in found] == ["cross_entropy", "cgc, best"]
    assert float(found[1]["value"]) == cell.estimate.value
    assert float(found[1]["difference_low"]) == cell.difference.estimate.low
    assert math.isclose(float(found[1]["difference"]), 59.03086419725 - 55)


def test_names_are_no_markup_and_80_columns_hold_it(make_run) -> None:
    text = printed(
        [make_run("[red]ce[/]"), make_run("digits_cgc_no_negatives-seed0", [140.0, 150.0, 160.0, 171.5])], 80
    )
    assert "[red]ce[/]" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "[153.4, 157.4]" in text


def test_a_run_stands_for_its_only_evaluation(make_run, tmp_path: Path) -> None:
    write_run(tmp_path / "run" / "evaluation-test", make_run())
    assert record_folder(tmp_path / "run") == tmp_path / "run" / "evaluation-test"
    assert record_folder(tmp_path / "run" / "evaluation-test") == tmp_path / "run" / "evaluation-test"
    write_run(tmp_path / "run" / "evaluation-val", make_run())
    with pytest.raises(ArgumentError, match=r"run has 2 evaluations: name the one to compare of .*test, .*val"):
        record_folder(tmp_path / "run")
    with pytest.raises(RecordError, match=r"no record in .*nowhere, and no evaluation in it that has one"):
        record_folder(tmp_path / "nowhere")
