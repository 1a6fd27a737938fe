"""Few-shot episodes as a person types them: one command, the same draws for every recipe, one report."""

from __future__ import annotations

import csv
import itertools
import json

import pytest

from contrex.cli import main

RECIPES = ["digits_few_shot_cross_entropy", "digits_few_shot_cgc"]
SMALL = [
    *("--data.num-train", "40", "--labelled.per-class", "1", "--training.epochs", "1", "--training.batch-size", "8"),
    *("--training.device", "cpu", "--evaluation.device", "cpu", "--evaluation.num-bootstrap", "20"),
    *("--evaluation.metrics", "top1", "--evaluation.gallery", "2"),
]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    assert main(["train", *RECIPES, "--seeds", "3", "--folder", str(folder), *SMALL]) == 0
    return folder


def run_folders(episodes):
    return [[episodes / f"{recipe}-seed{seed}" for seed in range(3)] for recipe in RECIPES]


def test_each_episode_has_one_draw_for_all_recipes(episodes):
    lists = [[(run / "labelled.txt").read_text() for run in runs] for runs in run_folders(episodes)]
    assert lists[0] == lists[1]
    assert len(set(lists[0])) == 3


def test_an_episode_is_measured_on_its_own_rest(episodes):
    for run in itertools.chain(*run_folders(episodes)):
        drawn = set((run / "labelled.txt").read_text().splitlines())
        with (run / "evaluation-val" / "samples.csv").open(newline="") as stream:
            measured = {row["path"] for row in csv.DictReader(stream)}
        assert len(measured) == 40 - len(drawn)
        assert not measured & drawn


def test_one_report_says_what_it_found_over_episodes(episodes):
    page = (episodes / "report.html").read_text()
    assert "3 episodes, n=" in page
    assert "over 3 episodes" in page
    assert [path.name for path in episodes.glob("*.html")] == ["report.html"]


@pytest.mark.slow
def test_more_episodes_are_added_to_those_that_are_there(episodes, capsys):
    before = {
        run: (run / "evaluation-val" / "record.json").read_bytes() for run in itertools.chain(*run_folders(episodes))
    }
    words = ["train", *RECIPES, "--seeds", "4", "--folder", str(episodes), *SMALL]
    assert main(words) == 2
    assert "already holds digits_few_shot_cross_entropy-seed0: continue with --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert all((run / "evaluation-val" / "record.json").read_bytes() == content for run, content in before.items())
    assert "4 episodes" in (episodes / "report.html").read_text()
    drawn = json.loads((episodes / "digits_few_shot_cgc-seed3" / "recipe.json").read_text())["labelled"]
    assert (drawn["per_class"], drawn["seed"], drawn["rest"]) == (1, None, "val")


def test_one_run_has_nothing_to_share(capsys):
    assert main(["train", RECIPES[0], "--jobs", "2"]) == 2
    assert "--jobs 2 shares several runs, and this is one: add --seeds, or leave it out" in capsys.readouterr().err
