"""The papers' tables as experiments: their lines, baselines and repetitions, and their recipes at the tiny scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contrex.errors import ArgumentError, UnknownNameError
from contrex.recipes import RECIPES
from contrex.recipes.published import PAPERS
from contrex.recipes.tables import TITLES, table_named, tables_named, trials
from contrex.recipes.tiny import fitted, tiny, with_epochs
from contrex.settings import Model
from sampling import crossed


def test_every_table_of_the_papers_has_a_name():
    assert {f"{paper}-table{table}" for paper, tables in PAPERS.items() for table in tables} == set(TITLES)


@pytest.mark.parametrize("name", TITLES)
def test_each_experiment_has_one_baseline_before_its_methods(name):
    table = table_named(name)
    assert {line.row for line in table.lines} == {number.row for number in table.numbers}
    for place, line in enumerate(table.lines):
        rival = table.baseline(line)
        assert rival is None or table.lines.index(rival) < place
        assert rival is None or rival.experiment == line.experiment
    experiments = [line.experiment for line in table.lines]
    assert len(set(experiments)) == sum(table.baseline(line) is None for line in table.lines)
    assert experiments == sorted(experiments, key=experiments.index)  # together


@pytest.mark.parametrize(
    ("table", "row", "baseline"),
    [
        ("cgc-table1", "imagenet_resnet50_cgc", "imagenet_resnet50_cross_entropy"),
        ("cgc-table5", "imagenet_resnet18_cgc_no_negatives", "imagenet_resnet18_cgc"),
        ("cgc-table7", "cub_5_shot_cgc", "cub_5_shot_cross_entropy"),
        ("cgc-table10", "imagenet_resnet18_cgc_lambda_0_01", "imagenet_resnet18_cross_entropy"),
        ("excon-table1a", "exconb_cifar100_256", "supcon_ori_cifar100_256"),
    ],
)
def test_what_a_row_is_compared_with(table, row, baseline):
    found = table_named(table)
    (line,) = (line for line in found.lines if line.row == row)
    assert found.baseline(line).row == baseline


def test_maps_of_one_network_are_compared_with_its_original_ones():
    table = table_named("contrast-table2")
    line = next(line for line in table.lines if dict(line.measured.fields).get("contrast") == "weighted")
    rival = table.baseline(line)
    assert (rival.row, dict(rival.measured.fields)) == (line.row, {"explainer": "hires_cam"})


def test_tables_and_rows_are_named():
    (table,) = tables_named(("cgc_table1",), ("*resnet18*",))
    assert {line.row for line in table.lines} == {f"imagenet_resnet18_{m}" for m in ("cross_entropy", "gcc", "cgc")}
    with pytest.raises(UnknownNameError, match=r"got 'cgc-table11'\. Near it: cgc-table1,"):
        tables_named(("cgc-table11",))
    with pytest.raises(ArgumentError, match="each once, got cgc-table1 cgc-table1"):
        tables_named(("cgc-table1", "cgc-table1"))
    with pytest.raises(UnknownNameError, match=r"`rows` must be .*got 'resnet18'"):
        tables_named(("cgc-table1",), ("resnet18",))


def test_repetitions_are_the_papers():
    counts = {"cub_1_shot_cgc": 20, "flowers_cross_entropy": 3, "exconb_tiny_imagenet": 5, "cub_vgg16_bn": 1}
    assert {row: trials(row) for row in counts} == counts


@pytest.mark.parametrize(
    "row", crossed(sorted({number.row for name in TITLES for number in table_named(name).numbers}), one_in=3)
)
def test_tiny_keeps_what_is_compared(row):
    recipe = RECIPES[row]()
    small = tiny(recipe)
    assert type(small.method) is type(recipe.method)
    assert getattr(small.method, "weight", None) == getattr(recipe.method, "weight", None)
    assert getattr(small.method, "background", None) == getattr(recipe.method, "background", None)
    assert (small.labelled.per_class, small.labelled.rest) == (recipe.labelled.per_class, recipe.labelled.rest)
    assert small.evaluation.checkpoint == recipe.evaluation.checkpoint
    assert small.model.name == "contrex:convnet"


def test_a_tiny_run_fits_its_images():
    few = fitted(tiny(RECIPES["cub_1_shot_cgc"]()), num_images=10)
    assert (few.training.batch_size, few.training.epochs) == (10, 90)
    assert few.optimizer.lr == pytest.approx(0.15 * 10 / 64)
    assert few.training.validate_every == 90  # the rest has hundreds of times as many images
    whole = fitted(tiny(RECIPES["cub_cgc"]()), num_images=3900)
    assert (whole.training.batch_size, whole.training.epochs, whole.training.validate_every) == (64, 12, 1)


def test_only_rows_that_start_from_weights_do_so():
    model = Model("contrex:convnet", weights=Path("w.safetensors"), fresh=("fc",))
    assert tiny(RECIPES["cub_1_shot_cgc"](), model=model).model == model
    assert tiny(RECIPES["imagenet_resnet18_cgc"](), model=model).model == Model("contrex:convnet")
    own = replace(model, pretrained=True)
    assert tiny(RECIPES["imagenet_resnet18_cgc"](), model=own).model == Model("contrex:convnet")


def test_excons_start_is_at_the_same_share_of_the_epochs():
    recipe = tiny(RECIPES["excon_cifar100_256"]())
    assert (recipe.method.starting_epoch, recipe.training.epochs) == (7, 14)  # 100 of 200 in the paper
    assert with_epochs(recipe, 2).method.starting_epoch == 1


def test_a_schedule_of_steps_is_as_long_as_the_run():
    """At 20 of 90 epochs the rate would never have fallen."""
    recipe = RECIPES["imagenet_resnet50_cgc"]()
    assert (recipe.training.epochs, recipe.schedule.milestones) == (90, (30, 60))
    assert with_epochs(recipe, 20).schedule.milestones == (7, 13)
    assert with_epochs(recipe, 2).schedule.milestones == (1,)
    assert with_epochs(recipe, 90) == recipe
