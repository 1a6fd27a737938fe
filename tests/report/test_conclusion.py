"""The sentences of a conclusion are true of its numbers, and give a reason only where the records show it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contrex.errors import ArgumentError
from contrex.report.conclusion import conclusions
from contrex.report.groups import grouped
from contrex.report.tables import comparison
from report.conftest import make_metric

BETTER = {"content_heatmap": True, "content_heatmap_at_spread_25": True, "insertion_auc": True, "spread": None}
BASE = {"content_heatmap": 50.0, "content_heatmap_at_spread_25": 60.0, "spread": 70.0, "insertion_auc": 0.8}
NOISE = np.array([-1.0, 1.0, -1.0, 1.0])


def run_of(make_run, name, values, noise=0.0):
    """A run with several metrics, whose four images differ a little; `noise` is what does not go one way."""
    columns = {
        metric: mean + np.array([-0.02, -0.01, 0.01, 0.02]) * mean + noise * mean * NOISE
        for metric, mean in values.items()
    }
    run = make_run(name)
    metrics = []
    for metric, column in columns.items():
        title, unit = metric.replace("_", " ").capitalize(), "" if metric == "insertion_auc" else "%"
        changes = {"name": metric, "title": title, "unit": unit, "higher_is_better": BETTER[metric]}
        made = make_metric(list(column), protocol={"split": "val", "region": "boxes"}, **changes)
        metrics.append(replace(made, family=replace(made.family, name=metric.removesuffix("_25"), title=title)))
    samples = replace(run.samples, values=columns)
    return replace(run, record=replace(run.record, metrics=metrics), samples=samples)


def concluded(make_run, changes, noise=0.0):
    runs = [run_of(make_run, "cross_entropy", BASE), run_of(make_run, "cgc", BASE | changes, noise)]
    (found,) = conclusions(comparison(grouped(runs)))
    return found, " ".join(found.sentences)


def test_better_and_worse(make_run):
    found, text = concluded(make_run, {"content_heatmap": 74.0, "insertion_auc": 0.6})
    assert found.is_mixed
    assert "It puts 74\N{NO-BREAK SPACE}% of its heat inside the object's box instead of 50\N{NO-BREAK SPACE}%" in text
    assert "Worse: insertion auc (0.6 instead of 0.8)" in text
    assert "while its maps shrink" not in text, "the spread is as it was: there is no reason in the records"
    assert "smaller" not in text.lower()


def test_a_reason_for_insertion_where_maps_have_shrunk(make_run):
    _, text = concluded(make_run, {"spread": 30.0, "insertion_auc": 0.6})
    assert "Its maps are smaller: they are spread over" in text
    assert "Insertion gets worse while its maps shrink" in text
    _, text = concluded(make_run, {"spread": 30.0, "insertion_auc": 0.9})
    assert "while its maps shrink" not in text
    _, text = concluded(make_run, {"spread": 90.0, "insertion_auc": 0.6})
    assert "while its maps shrink" not in text


@pytest.mark.parametrize(
    ("equal", "words"),
    [
        (66.0, "its maps are better placed, and not only smaller"),
        (60.0, "its maps are smaller, not better placed, for among maps of equal size the two are not told apart"),
        (54.0, "its maps are smaller, not better placed, for among maps of equal size it is 54"),
    ],
)
def test_by_size_or_by_place(make_run, equal, words):
    changes = {"content_heatmap": 74.0, "content_heatmap_at_spread_25": equal, "spread": 30.0}
    _, text = concluded(make_run, changes)
    assert words in text


def test_not_told_apart(make_run):
    found, text = concluded(make_run, {}, noise=0.05)
    assert not found.is_mixed
    assert text.startswith("In no number is it told apart from ")
    for word in ("Better", "Worse", "while its maps", "puts"):
        assert word not in text


def test_names_of_your_own_and_markup(make_run):
    runs = [run_of(make_run, "cross_entropy", BASE), run_of(make_run, "cgc", BASE | {"content_heatmap": 74.0})]
    (found,) = conclusions(comparison(grouped(runs, names=["plain", "<b>ours</b>"])))
    assert found.name == "<b>ours</b>"
    with pytest.raises(ArgumentError, match=r"`names` must hold 2, one for each row .*, got 1: 'plain'"):
        grouped(runs, names=["plain"])
    with pytest.raises(ArgumentError, match="`names` must be words that differ, got 'x', 'x'"):
        grouped(runs, names=["x", "x"])
