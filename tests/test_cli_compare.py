"""`contrex compare`, as a person types it."""

import csv

import numpy as np
import pytest

from contrex.cli import main
from contrex.records import MetricRecord, Record, RunRecord, Samples, write_run


def run_of(name, values):
    """A run of one metric over images called 0, 1, 2, ..."""
    mean = sum(values) / len(values)
    metric = MetricRecord("top1", "Top-1 accuracy", mean, mean - 1, mean + 1, len(values), 0, "", "%", True)
    record = Record(name, "2026-11-20T10:00:00+00:00", "", {}, {}, 0, {"name": "d"}, ["cat"], [metric])
    zeros = np.zeros(len(values), np.int64)
    paths = [str(i) for i in range(len(values))]
    samples = Samples(paths, zeros, zeros, np.ones(len(values)), {"top1": np.array(values)})
    return RunRecord(record, samples, None)


@pytest.fixture
def folders(tmp_path):
    write_run(tmp_path / "ce" / "evaluation-test", run_of("ce", [0.0, 0.0, 100.0, 0.0, 0.0, 0.0]))
    write_run(tmp_path / "cgc", run_of("cgc", [100.0] * 6))
    return tmp_path / "ce", tmp_path / "cgc"


def test_it_prints_differences_and_writes_page_and_numbers(folders, tmp_path, capsys):
    page, numbers = tmp_path / "out" / "page.html", tmp_path / "out" / "numbers.csv"
    assert main(["compare", *map(str, folders), "--output", str(page), "--csv", str(numbers)]) == 0
    text = capsys.readouterr().out
    assert "p = 0.062" in text  # five of five that differ: 2 / 32
    assert "better" in text
    assert "p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.062" in page.read_text(encoding="utf-8")
    with numbers.open(encoding="utf-8", newline="") as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["ce", "cgc"]


def test_it_writes_nothing_unasked(folders, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare", *map(str, folders)]) == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name two runs or more, the baseline first"),
        (["one"], "name two runs or more, the baseline first"),
        (["one", "two"], "no record in one, and no evaluation in it that has one"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


def test_several_evaluations_must_be_told_apart(folders, capsys):
    write_run(folders[0] / "evaluation-val", run_of("ce", [0.0] * 6))
    assert main(["compare", *map(str, folders)]) == 2
    assert "has 2 evaluations: name the one to compare" in capsys.readouterr().err
