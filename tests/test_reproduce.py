"""The papers' tables through the real command: every row at the tiny scale, plans, resuming, and what is refused."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest

import contrex
from contrex import reproduce
from contrex.cli import main
from contrex.errors import ArgumentError, DataError, WeightsError
from contrex.recipes.tables import TITLES, tables_named
from contrex.records import read_run
from contrex.reproduce import Order, ordered, planned
from contrex.settings import CUB200, Cifar, Digits, ImageNet, Model, UnRel

FEW = Digits(num_train=200, num_val=20, num_test=32, image_size=32, digit_size=(14, 18))
QUICK = (
    *("--data", "digits", "--data.num-train", "200", "--data.num-val", "20", "--data.num-test", "32"),
    *("--data.image-size", "32", "--data.digit-size", "14", "18", "--device", "cpu"),
)


def command(folder, *words):
    return main(["reproduce", *words, "--scale", "tiny", *QUICK, "--epochs", "1", "--folder", str(folder)])


def order(*names, rows=(), **options):
    return Order(tables_named(names, rows), **options)


def numbers(folder, name):
    with (folder / "tiny" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.parametrize("name", TITLES)
def test_every_row_of_every_table_runs(tmp_path, name):
    assert command(tmp_path, name) == 0
    rows = numbers(tmp_path, name)
    table = tables_named((name,))[0]
    assert len(rows) == len(table.numbers)
    assert all(row["ours"] for row in rows)


def test_one_row_from_the_paper_to_the_page(tmp_path, capsys):
    """Table 5 with its rows for ResNet-18: trained, measured, shown; then nothing is done again."""
    assert command(tmp_path, "cgc-table5", "--rows", "*resnet18*") == 0
    told = capsys.readouterr().out
    assert "Effects of methods in the paper: 2." in told
    rows = numbers(tmp_path, "cgc-table5")
    assert [(row["row"], row["metric"], row["paper"]) for row in rows] == [
        ("imagenet_resnet18_cgc", "top1", "66.37"),
        ("imagenet_resnet18_cgc_no_negatives", "top1", "67.0"),
        ("imagenet_resnet18_cgc", "content_heatmap", "65.83"),
        ("imagenet_resnet18_cgc_no_negatives", "content_heatmap", "44.08"),
    ]
    run = tmp_path / "tiny" / "imagenet_resnet18_cgc_tiny-seed0"
    record = read_run(run / "evaluation-test").record
    assert float(rows[0]["ours"]) == record.metric("top1").value
    assert record.configuration["method"]["weight"] == 1.0
    written = (run / "evaluation-test" / "record.json").stat().st_mtime_ns
    assert command(tmp_path, "cgc-table5", "--rows", "*resnet18*") == 0
    assert (run / "evaluation-test" / "record.json").stat().st_mtime_ns == written
    page = (tmp_path / "tiny" / "cgc-table5.html").read_text()
    assert "66.37" in page
    assert "The paper leaves open" in page
    assert "Records are of" not in page
    path = run / "evaluation-test" / "record.json"
    path.write_text(path.read_text().replace(f'"contrex": "{contrex.__version__}"', '"contrex": "0.0.1"'))
    assert command(tmp_path, "cgc-table5", "--rows", "*resnet18*") == 0
    assert "Records are of contrex 0.0.1, torch" in (tmp_path / "tiny" / "cgc-table5.html").read_text()


def test_shared_rows_are_one_run():
    """ResNet-18's CGC is in Tables 1, 5 and 10, the baseline in 1 and 10: five recipes, seven metrics."""
    found = ordered(order("cgc-table1", "cgc-table5", "cgc-table10", rows=("*resnet18*",), scale="tiny", data=[FEW]))
    assert [work.recipe.name.removeprefix("imagenet_resnet18_") for work in found.works] == [
        f"{name}_tiny"
        for name in (
            "cross_entropy",
            "gcc",
            "cgc",
            "cgc_no_negatives",
            *(f"cgc_lambda_{n}" for n in ("0_01", "0_1", "0_5", "2")),
        )
    ]
    assert found.works[2].recipe.evaluation.metrics == ("top1", "content_heatmap", "cgc_loss")
    places = [place for (_, line), place in found.places.items() if line.row == "imagenet_resnet18_cgc"]
    assert places == [(2, 0)] * 3


@pytest.mark.slow
def test_networks_and_data_sets_are_one_at_the_tiny_scale():
    found = ordered(order("contrast-table2", scale="tiny", data=[FEW]))
    (work,) = found.works
    ways = [(m.evaluation.explainer, m.evaluation.contrast) for m in work.measurements]
    assert ways == [(name, contrast) for name in ("hires_cam", "grad_cam") for contrast in (None, "weighted")]


def test_few_shot_rows_have_the_papers_episodes_with_the_same_draws(tmp_path):
    (tmp_path / "resnet50.pth").touch()
    asked = order("cgc-table7", rows=("cub_5_shot*",), data=[CUB200(tmp_path)], weights=tmp_path)
    first, second = ordered(asked).works
    assert (first.seeds, second.seeds) == (20, 20)
    assert first.recipe.labelled == second.recipe.labelled
    assert (first.recipe.labelled.per_class, first.recipe.labelled.rest) == (5, "val")
    assert [recipe.training.seed for recipe in first.recipes()] == list(range(20))


def test_data_of_the_user_keep_what_the_recipe_says(tmp_path):
    found = ordered(order("cgc-supplement-table1", data=[ImageNet(tmp_path, on_bad_image="skip")]))
    data = found.works[0].recipe.data
    assert (data.path, data.classes, data.on_bad_image) == (tmp_path, Path("data/imagenet100.txt"), "skip")


def test_other_data_and_layers_are_measured_as_in_the_paper(tmp_path):
    asked = order("cgc-table3", "cgc-table4", rows=("*cgc",), data=[ImageNet(tmp_path), UnRel(tmp_path)])
    (work,) = ordered(asked).works
    own, unrel = work.measurements
    assert (own.evaluation.explainer, own.evaluation.layer) == ("contrastive_excitation_backprop", "layer3")
    assert (unrel.data, unrel.evaluation.split, unrel.evaluation.metrics) == (
        UnRel(tmp_path), "test", ("top1", "content_heatmap"),
    )  # fmt: skip
    assert unrel.evaluation.content_heatmap_protocol == "published"


def the_plan(folder, capsys):
    """The words of the only command of a plan, and all that the plan says."""
    assert command(folder, "cgc-table5", "--rows", "*resnet18_cgc", "--plan") == 0
    told = capsys.readouterr().out
    (words,) = (shlex.split(line) for line in told.splitlines() if line.startswith("contrex "))
    return words, told


def test_a_plan_tells_commands_images_and_time(tmp_path, capsys):
    words, told = the_plan(tmp_path, capsys)
    assert words[1:3] == ["train", str(tmp_path / "tiny" / "recipes" / "imagenet_resnet18_cgc_tiny.json")]
    assert "192" in told  # three batches of 64 of 200 images
    assert not (tmp_path / "tiny" / "imagenet_resnet18_cgc_tiny-seed0").exists()


@pytest.mark.slow
def test_the_commands_of_a_plan_do_what_the_reproduction_does(tmp_path, capsys):
    words, _ = the_plan(tmp_path, capsys)
    assert main(words[1:]) == 0
    assert (tmp_path / "tiny" / "imagenet_resnet18_cgc_tiny-seed0" / "evaluation-test" / "record.json").is_file()


@pytest.mark.slow
def test_a_plan_names_each_way_of_measuring():
    found = ordered(order("contrast-table3", scale="tiny", data=[FEW], epochs=1, limit=8))
    assert found.works[0].measurements[0].evaluation.limit == 8
    from contrex.reproduce.plan import _commands

    commands = list(_commands(found.works[0], Path("r.json"), Path("runs")))
    assert len(commands) == 4
    assert commands[1].endswith("--contrast weighted")
    assert "--explainer grad_cam" in commands[2]


def test_the_plan_had_another_name():
    with pytest.warns(DeprecationWarning, match=r"contrex.reproduce.Plan is now ReproductionPlan"):
        assert reproduce.Plan is reproduce.ReproductionPlan
    with pytest.raises(AttributeError, match="has no attribute 'Plans'"):
        reproduce.Plans  # noqa: B018


@pytest.mark.slow
def test_the_papers_images_and_hours_are_planned_from_ten_steps(tmp_path):
    plan = planned(
        ordered(order("excon-table1a", rows=("supcon_cifar100",), scale="tiny", data=[FEW], seeds=3)), tmp_path
    )
    (work,) = plan.works
    assert (work.seeds, work.num_measured) == (3, 32)
    assert work.training.num_steps == 2 * 14 * (200 // 64)  # encoder and classifier in turns
    assert plan.seconds == pytest.approx(3 * (work.training.seconds + work.seconds_measuring))


@pytest.mark.parametrize(
    ("table", "data", "message"),
    [
        ("cgc-table1", [], r"cgc-table1 needs --data imagenet:PATH; there is no folder 'data.imagenet'"),
        ("cgc-table6", [], r"needs --data cub:PATH --data aircraft:PATH --data cars:PATH --data flowers:PATH"),
        ("excon-table1a", [Cifar(Path("no"))], r"--data cifar:PATH; there is no folder 'no'"),
    ],
)
def test_missing_data_are_named_before_anything_runs(table, data, message):
    with pytest.raises(DataError, match=message):
        ordered(order(table, data=data))


def test_missing_weights_are_named(tmp_path):
    asked = order("cgc-table6", rows=("cub*",), data=[CUB200(tmp_path)], weights=tmp_path)
    with pytest.raises(WeightsError, match=r"there is no .*resnet50.pth: put them into one folder"):
        ordered(asked)
    with pytest.raises(DataError, match="needs --data unrel:PATH"):
        ordered(order("cgc-table3", data=[ImageNet(tmp_path)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "`seeds` must be at least 1, got 0"),
        ({"scale": "tiny", "data": [FEW, FEW]}, "`data` is one data set for all rows at the scale tiny, got 2"),
        ({"scale": "tiny", "weights": Path("w")}, "`weights` is for the scale paper"),
        ({"model": Model("contrex:convnet")}, "`model` is for the scale tiny"),
    ],
)
def test_wrong_orders(options, message):
    with pytest.raises(ArgumentError, match=message):
        order("cgc-table1", **options)


def test_the_command_lists_the_tables_and_names_wrong_ones(capsys):
    assert main(["reproduce"]) == 2
    told = capsys.readouterr()
    assert "cgc-table5" in told.out
    assert "name a table" in told.err
    assert main(["reproduce", "cgc-table55"]) == 2
    assert "got 'cgc-table55'" in capsys.readouterr().err
    assert main(["reproduce", "cgc-table5", "--data", "imagenet:nowhere"]) == 2
    assert "there is no folder 'nowhere'" in capsys.readouterr().err
