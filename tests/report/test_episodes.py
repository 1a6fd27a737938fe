"""Few-shot episodes: runs of one method that differ in what they were trained and measured on."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from contrex.report import comparison_csv, comparison_tables, render_report, summary_table
from contrex.report.cells import cell_count, pairing, sign_text, verdict
from contrex.report.differences import episode_difference
from contrex.report.groups import grouped
from contrex.report.tables import comparison

NAME = "content_heatmap"


def cell(table, row):
    return table.rows[row].cells[NAME]


def printed(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


CONSTANT = {0: 1.0, 1: 2.0, 2: 3.0}
"""How much better each image of an episode is."""


@pytest.fixture
def make_episode(make_run):
    """A run of one episode, on images of its own, trained on the draw of its seed."""

    def make(name, seed, values, *, labelled=None, draw=None, first=None):
        paths = [f"train/{seed if first is None else first}_{number}.png" for number in range(len(values))]
        run = make_run(f"{name}-seed{seed}", values, paths=paths, seed=seed)
        settings = {"share": None, "per_class": 5, "file": None, "seed": None, "rest": "val"}
        configuration = {
            **run.record.configuration,
            "name": name,
            "labelled": {**settings, **(labelled or {})},
            "checkpoint": {"name": "last", "epochs_done": 15, "epochs": 15, "labelled_sha256": draw or f"d{seed}"},
        }
        return replace(run, record=replace(run.record, configuration=configuration))

    return make


def two_methods(make_episode, **changes):
    values = {0: [10.0, 50.0], 1: [20.0, 90.0, 40.0], 2: [0.0, 30.0]}
    baseline = [make_episode("few_cross_entropy", seed, values[seed]) for seed in (0, 1, 2)]
    better = {seed: [value + CONSTANT[seed] for value in values[seed]] for seed in (2, 0, 1)}
    return [*baseline, *(make_episode("few_cgc", seed, better[seed], **changes) for seed in better)]


def test_differences_are_within_episodes(make_episode):
    table = comparison(grouped(two_methods(make_episode)))
    found = cell(table, 1)
    assert found.difference.over == "episodes"
    assert found.difference.num_pairs == 3
    assert found.difference.estimate.value == pytest.approx(2.0)  # of 1, 2 and 3, not of 7 images
    assert (found.difference.estimate.low, found.difference.estimate.high) == pytest.approx((1.0, 3.0))
    assert verdict(found, table.columns[0]) == "better"
    assert pairing(found) == "over 3 episodes"
    assert sign_text(found) == "higher on 3, lower on 0 episodes, p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.25"
    assert cell_count(found) == "3 episodes, n=2\N{EN DASH}3 each"


@pytest.mark.parametrize(
    "changes", [{"draw": "another"}, {"labelled": {"seed": 0}}, {"labelled": {"per_class": None}}, {"first": 7}]
)
def test_other_draws_or_other_images_are_not_paired(make_episode, changes):
    found = cell(comparison(grouped(two_methods(make_episode, **changes))), 1)
    assert (found.difference.num_pairs, found.difference.over) == (0, "images")


def test_seeds_of_one_draw_are_seeds(make_episode):
    runs = [
        make_episode(name, seed, [10.0 + seed, 30.0], labelled={"seed": 4}, draw="d", first=9)
        for name in ("few_cross_entropy", "few_cgc")
        for seed in (0, 1)
    ]
    found = cell(comparison(grouped(runs)), 1)
    assert (found.difference.num_pairs, found.difference.over) == (2, "images")
    assert cell_count(found) == "2 seeds, n=2 each"


@pytest.mark.slow
def test_the_interval_of_episodes_covers_the_true_difference():
    """200 experiments of 20 episodes: draws vary by 2, images by 10, the difference is 1. Of 95 % intervals between 87
    and 99 % must hold it."""
    rng, held = np.random.default_rng(0), 0
    for experiment in range(200):
        episodes = []
        for _ in range(20):
            image, draw = rng.normal(50, 20, 30), rng.normal(1, 2)
            episodes.append(np.stack([image + draw + rng.normal(0, 5, 30), image + rng.normal(0, 5, 30)]))
        found = episode_difference(episodes, num_resamples=200, seed=experiment)
        held += found.low <= 1 <= found.high
    assert 174 <= held <= 198


def test_every_page_says_episodes(make_episode):
    runs = two_methods(make_episode)
    assert "3 episodes" in printed(summary_table(runs))
    assert any("3 episodes" in printed(table) for table in comparison_tables(runs))
    row = list(csv.DictReader(io.StringIO(comparison_csv(runs))))[1]
    assert (row["num_common"], row["paired_over"], row["num_above"]) == ("3", "episodes", "3")
    page = render_report(runs, title="t")
    assert "episodes 0, 1, 2" in page
    assert "over the episodes, in each of which both had the same labels" in page
