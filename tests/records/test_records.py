import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contrex.errors import ArgumentError, RecordError, UnknownNameError
from contrex.recipes import RECIPES
from contrex.records import (
    Gallery,
    MetricRecord,
    Profile,
    Record,
    RunRecord,
    Samples,
    Scatter,
    from_plain,
    read_run,
    to_plain,
    write_atomically,
    write_run,
)
from contrex.settings import CGC, CrossEntropy, Digits, Folder, Method, Model, Recipe


def a_run():
    metric = MetricRecord("top1", "Top-1", 97.5, 96.0, float("nan"), 40, 2, "no label", "%", True, {"k": 1})
    record = Record(
        name="run <b>",
        created="2026-11-20T12:00:00+00:00",
        command="contrex evaluate",
        configuration=to_plain(RECIPES["digits_cgc"]()),
        versions={"torch": "2"},
        seed=3,
        dataset={"name": "digits", "num_images": 42},
        classes=["a", "b"],
        metrics=[metric],
        curves={"loss": [(1.0, 2.5), (2.0, 1.5)]},
        profiles=[Profile("c", "Curve", "x", "y", {"": [(0.0, 0.5, 0.25, 0.75)], "<b>": []})],
        scatters=[Scatter("embedding", "Embedding", [(0.5, -1.0, "a<b>", "image")])],
        skipped_images=["x.jpg"],
    )
    gallery = Gallery(
        images=[np.full((4, 6, 3), 7, np.uint8), np.zeros((5, 5, 3), np.uint8)],
        heatmaps=[np.ones((2, 3), np.float32), -np.ones((2, 2), np.float32)],
        boxes=[np.array([[0, 0, 2, 2]], np.float32), np.zeros((0, 4), np.float32)],
        paths=["a/é.png", "b.png"],
        labels=[0, 1],
        predictions=[0, 0],
        probabilities=[0.5, 0.25],
        answers={1: '{"é": 1}'},
    )
    samples = Samples(
        ["a,b.png", "b\udce9.png"],
        np.array([0, 1]),
        np.array([1, 1]),
        np.array([1 / 3, 0.5]),
        {"top1": np.array([100.0, np.nan]), "a/b c": np.array([1e-9 / 3, -2.0])},
    )
    return RunRecord(record, samples, gallery, {"epoch 2": b"two", "epoch 10": b"ten"})


def test_a_run_survives_the_disk(tmp_path):
    run = a_run()
    write_run(tmp_path, run)
    again = read_run(tmp_path)
    assert again.record.metric("top1").value == 97.5
    assert np.isnan(again.record.metric("top1").high)
    assert again.record.metric("top5") is None
    assert again.samples == run.samples
    assert again.gallery.answers == run.gallery.answers
    assert again.record.curves == {"loss": [(1.0, 2.5), (2.0, 1.5)]}
    assert list(again.sheets.items()) == list(run.sheets.items())
    write_run(tmp_path, replace(run, sheets={"epoch 3": b"three"}))
    assert read_run(tmp_path).sheets == {"epoch 3": b"three"}
    assert replace(again.record, metrics=()) == replace(run.record, metrics=())
    for name in ("images", "heatmaps", "boxes"):
        for a, b in zip(getattr(again.gallery, name), getattr(run.gallery, name), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert again.gallery.paths == run.gallery.paths


def test_a_record_is_never_beside_the_samples_of_another(tmp_path, monkeypatch):
    """Where writing it again ends in the middle, there is none."""
    write_run(tmp_path, a_run())

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("contrex.records.folder._write_gallery", full)
    with pytest.raises(OSError, match="no space left"):
        write_run(tmp_path, a_run())
    with pytest.raises(RecordError, match="no record in"):
        read_run(tmp_path)


VERSION_1 = Path(__file__).parent / "version1"
"""A folder that contrex wrote before records said what they are: every metric, on six digits."""


def test_a_record_of_version_1_is_read_and_completed():
    run = read_run(VERSION_1)
    plain = json.loads((VERSION_1 / "record.json").read_text())
    assert plain["schema_version"] == 1
    assert [metric.name for metric in run.record.metrics] == [metric["name"] for metric in plain["metrics"]]
    for metric, before in zip(run.record.metrics, plain["metrics"], strict=True):
        assert (metric.family.name, metric.unit, metric.protocol) == (
            before["family"],
            before["unit"],
            before["protocol"],
        )
        assert metric.value == before["value"] or (before["value"] is None and np.isnan(metric.value))
        assert metric.family.title
        assert metric.family.meaning
        assert metric.per_image == {"ece": "shares", "cgc_loss": "none"}.get(metric.name, "values"), metric.name
    by_name = {metric.name: metric for metric in run.record.metrics}
    kept = by_name["relative_probability_negative_zero_t2"]
    assert kept.dims == {"sign": "negative", "baseline": "zero", "target": "t2"}
    assert (kept.family.section, kept.family.row) == ("Negative features kept", "rest zero, t2")
    assert by_name["drop_percent_20"].dims == {"measure": "drop_percent", "share": 0.2}
    assert by_name["gradient_sign_weighted_logit_0_001"].dims["epsilon"] == 0.001
    assert {profile.name: profile.chart for profile in run.record.profiles}["reliability"] == "reliability"
    assert len(run.samples) == 6
    assert np.isnan(run.samples.values["cgc_loss"]).all()
    assert run.gallery is not None


def test_values_of_version_1_that_do_not_average_to_the_metric_say_so(tmp_path):
    shutil.copytree(VERSION_1, tmp_path, dirs_exist_ok=True)
    plain = json.loads((tmp_path / "record.json").read_text())
    for metric in plain["metrics"]:
        metric["value"] = 1000.0
    (tmp_path / "record.json").write_text(json.dumps(plain))
    assert {metric.per_image for metric in read_run(tmp_path).record.metrics} == {"none"}


def test_values_are_kept_to_the_last_bit_and_rounded_for_people(tmp_path):
    run = a_run()
    write_run(tmp_path, run)
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["value a/b c"][0] == 1e-9 / 3
    text = (tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert text[0] == "path,label,prediction,probability,top1,a/b c"
    assert text[1] == '"a,b.png",0,1,0.333333,100,3.33333e-10'
    (tmp_path / "samples.npz").unlink()  # a folder with the table alone is read too, as precisely as it is
    old = read_run(tmp_path).samples
    assert old.labels.tolist() == [0, 1]
    assert old.values["top1"].tolist()[0] == 100
    assert np.isnan(old.values["top1"][1])
    assert old != run.samples


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("top1", "high", r"`top1` of b.png in samples.csv must be a number or empty, got 'high'. Evaluate again"),
        ("label", "", r"`label` of b.png in samples.csv must be a number, got ''"),
    ],
)
def test_a_text_among_the_samples_is_named(tmp_path, column, text, message):
    write_run(tmp_path, a_run())
    (tmp_path / "samples.npz").unlink()
    row = {"path": "b.png", "label": "1", "prediction": "1", "probability": "0.5", "top1": "", column: text}
    (tmp_path / "samples.csv").write_text("\n".join([",".join(row), ",".join(row.values())]))
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path)


def test_damaged_samples_are_named(tmp_path):
    write_run(tmp_path, a_run())
    whole = (tmp_path / "samples.npz").read_bytes()
    (tmp_path / "samples.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"samples.npz is damaged"):
        read_run(tmp_path)
    np.savez(tmp_path / "samples.npz", paths=np.array(["a"]), labels=np.zeros(2))
    with pytest.raises(RecordError, match=r"samples.npz is damaged: 'predictions"):
        read_run(tmp_path)
    columns = dict.fromkeys(("labels", "predictions", "probabilities"), np.zeros(2))
    np.savez(tmp_path / "samples.npz", paths=np.array(["a"]), **columns)
    with pytest.raises(RecordError, match=r"samples.npz is damaged: its columns have different lengths"):
        read_run(tmp_path)


def test_damaged_and_foreign_records_are_named(tmp_path):
    with pytest.raises(RecordError, match=r"no record in .*`contrex evaluate` writes one"):
        read_run(tmp_path)
    write_run(tmp_path, a_run())
    (tmp_path / "gallery.npz").write_bytes(b"PK")
    with pytest.raises(RecordError, match=r"gallery.npz is damaged"):
        read_run(tmp_path)
    np.savez(tmp_path / "gallery.npz", paths=np.array([{}]))
    with pytest.raises(RecordError, match=r"gallery.npz is damaged: Object arrays cannot be loaded"):
        read_run(tmp_path)
    (tmp_path / "gallery.npz").unlink()
    path = tmp_path / "record.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "schema_version": 99}))
    with pytest.raises(RecordError, match="schema version 99, this contrex reads 1 and 2"):
        read_run(tmp_path)
    path.write_text(json.dumps({**plain, "metrics": [{"name": "top1"}]}))
    with pytest.raises(RecordError, match="is not a contrex record"):
        read_run(tmp_path)
    for text in ("{", "[" * 200_000):
        path.write_text(text)
        with pytest.raises(RecordError, match="is not a contrex record"):
            read_run(tmp_path)


def test_nothing_of_an_earlier_record_is_left(tmp_path):
    """Also where that one was not finished, and has no record.json."""
    write_run(tmp_path, a_run())
    assert read_run(tmp_path).gallery is not None
    (tmp_path / "record.json").unlink()
    write_run(tmp_path, replace(a_run(), gallery=None, samples=Samples()))
    found = read_run(tmp_path)
    assert found.gallery is None
    assert len(found.samples) == 0


def test_writing_keeps_the_old_file_on_an_error(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_recipes_survive_json():
    for name, recipe in RECIPES.items():
        assert from_plain(json.loads(json.dumps(to_plain(recipe()))), Recipe) == recipe(), name


def test_unions_are_told_apart_by_their_tag():
    recipe = Recipe("r", Folder(Path("x"), classes=("a",)), Model(options={"k": "1"}), CGC(layer="l"))
    again = from_plain(to_plain(recipe), Recipe)
    assert again == recipe
    assert isinstance(again.data, Folder)
    assert from_plain(to_plain(replace(recipe, data=Digits(), method=CrossEntropy())), Recipe).method == CrossEntropy()


def test_damaged_recipes_are_refused_by_field():
    plain = to_plain(RECIPES["digits_cgc"]())
    with pytest.raises(UnknownNameError, match=r"recipe.optimizer must be one of .* got 'lrr'. Did you mean 'lr'"):
        from_plain({**plain, "optimizer": {"lrr": 1}}, Recipe, where="recipe")
    with pytest.raises(UnknownNameError, match=r"recipe.method.kind must be one of .* got 'CGD'"):
        from_plain({**plain, "method": {"kind": "CGD"}}, Recipe, where="recipe")
    with pytest.raises(RecordError, match=r"recipe.training.epochs must be int, got 'many'"):
        from_plain({**plain, "training": {"epochs": "many"}}, Recipe, where="recipe")
    with pytest.raises(RecordError, match=r"recipe: .*missing .*'data'"):
        from_plain({k: v for k, v in plain.items() if k != "data"}, Recipe, where="recipe")
    with pytest.raises(RecordError, match="must be the fields of Training, got 3"):
        from_plain({**plain, "training": 3}, Recipe, where="recipe")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("optimizer", "name", "adam", r"must be one of sgd, adamw, got 'adam'"),
        ("optimizer", "nesterov", "false", r"must be bool, got 'false'"),
        ("optimizer", "nesterov", 1, r"must be bool, got 1"),
        ("optimizer", "clip_norm", "5", r"must be float, got '5'"),
        ("training", "epochs", 1.9, r"must be int, got 1\.9"),
        ("training", "epochs", True, r"must be int, got True"),
        ("training", "device", None, r"must be str, got None"),
        ("augmentation", "scale", [0.5], r"must be a list of 2, got \[0\.5\]"),
        ("augmentation", "scale", [0.5, "1"], r"must be float, got '1'"),
        ("evaluation", "metrics", "top1", r"must be a list, got 'top1'"),
        ("schedule", "milestones", [1, 2.5], r"must be int, got 2\.5"),
        ("model", "weights", 3, r"must be Path, got 3"),
        ("model", "options", ["a"], r"must be names with values, got \['a'\]"),
        ("model", "options", {"a": 1}, r"must be str, got 1"),
        ("model", "kind", "Digits", r"must be the fields of Model, got \{"),
    ],
)
def test_values_of_another_type_are_refused_by_field(part, field, value, message):
    """None of them is converted: `bool("false")` is True, `int(1.9)` is 1."""
    plain = json.loads(json.dumps(to_plain(RECIPES["digits_cgc"]())))
    plain[part][field] = value
    name = rf"recipe\.{part}" if field == "kind" else rf"recipe\.{part}\.{field}"
    with pytest.raises(RecordError, match=rf"^{name}(\.a)? {message}"):
        from_plain(plain, Recipe, where="recipe")


def test_a_union_needs_its_tag():
    plain = to_plain(RECIPES["digits_cgc"]())
    with pytest.raises(RecordError, match=r"recipe.data must be fields with the kind CUB200 or .*Digits, got \{'path'"):
        from_plain({**plain, "data": {"path": "x"}}, Recipe, where="recipe")


def test_whole_numbers_stand_for_floats_and_ranges_are_checked():
    plain = to_plain(RECIPES["digits_cgc"]())
    optimizer = {**plain["optimizer"], "lr": 1}
    assert from_plain({**plain, "optimizer": optimizer}, Recipe).optimizer.lr == 1.0
    with pytest.raises(ArgumentError, match=r"`optimizer.lr` must be positive, got -1"):
        from_plain({**plain, "optimizer": {**optimizer, "lr": -1}}, Recipe)


def test_a_field_that_is_no_more_is_read_as_it_stood_unless_asked_for():
    plain = to_plain(CGC(weight=0.5))
    assert from_plain({**plain, "starting_epoch": 0}, Method, where="method") == CGC(weight=0.5)
    with pytest.raises(UnknownNameError, match=r"method must be one of .*consistency_after.*; got 'starting_epoch'"):
        from_plain({**plain, "starting_epoch": 6}, Method, where="method")
