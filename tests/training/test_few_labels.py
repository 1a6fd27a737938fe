"""Runs whose training images have few labels: what they leave behind, and what they are measured on."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.data.labelled import draw_of, run_images
from contrex.errors import CheckpointError, DataError, InterruptedRunError
from contrex.experiment import evaluate_run
from contrex.methods.cgc import CGCStep
from contrex.settings import Evaluation, Folder, Labelled
from contrex.training import timing, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.log import read_log
from training.runs import quiet, tiny, varied

FEW = replace(
    tiny(epochs=1),
    labelled=Labelled(per_class=1, rest="val"),
    evaluation=Evaluation(("top1",), split="val", num_bootstrap=20, device="cpu"),
)
"""9 of 26 digits are trained on (one of the ten has no image), one step of 8."""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    train(FEW, folder, console=quiet())
    return folder


def test_nothing_but_the_draw_is_trained_on(monkeypatch, tmp_path):
    forward, seen = CGCStep.forward, set()
    monkeypatch.setattr(CGCStep, "forward", lambda self, batch: (seen.update(batch.paths), forward(self, batch))[1])
    train(varied(FEW, epochs=4), tmp_path, console=quiet())
    assert seen == set(drawn_paths(tmp_path))


def drawn_paths(folder):
    return (folder / "labelled.txt").read_text().splitlines()


def weights(folder):
    return Checkpoints(folder).load()["steps"][0]


def assert_equal_weights(a, b):
    first, second = weights(a), weights(b)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_draw_is_saved(few):
    assert len(drawn_paths(few)) == 9
    assert Checkpoints(few).load()["labelled_sha256"] == draw_of(run_images(FEW, "train")).sha256
    assert Checkpoints(few).load()["num_images"] == 9


def test_a_run_is_validated_and_measured_on_the_rest(few):
    run, folder = evaluate_run(few, FEW.evaluation, console=quiet())
    assert folder == few / "evaluation-val"
    measured = run.samples.paths
    assert len(measured) == 17
    assert not set(measured) & set(drawn_paths(few))
    record = run.record
    assert record.dataset["name"] == "digits/train (17 others)"
    assert record.dataset["labelled_sha256"] == record.configuration["checkpoint"]["labelled_sha256"]
    assert record.configuration["labelled"]["per_class"] == 1
    (validated,) = [row["val_top1"] for row in read_log(few) if "val_top1" in row]
    assert validated == pytest.approx(record.metric("top1").value)


def test_other_splits_and_other_data_are_what_they_are(few):
    def measured(**changes):
        data = changes.pop("data", None)
        run, _ = evaluate_run(few, replace(FEW.evaluation, **changes), console=quiet(), data=data)
        return run.record.dataset["name"], run.record.dataset["num_images"]

    assert measured(split="test") == ("digits/test", 12)
    assert measured(split="train") == ("digits/train (9 labelled)", 9)
    assert measured(data=replace(FEW.data, num_val=9)) == ("digits/val", 9)


def test_a_run_from_the_saved_list_is_the_same_run(few, tmp_path):
    again = replace(FEW, labelled=Labelled(file=few / "labelled.txt", rest="val"))
    train(again, tmp_path / "again", console=quiet())
    assert_equal_weights(few, tmp_path / "again")
    assert drawn_paths(tmp_path / "again") == drawn_paths(few)


def test_a_list_may_lie_elsewhere_when_its_run_is_resumed_but_must_be_the_same(few, tmp_path):
    lists = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file in lists[:2]:
        file.write_bytes((few / "labelled.txt").read_bytes())
    lists[2].write_text("\n".join([*drawn_paths(few)[:-1], "digits/train/00000"]))
    assert "digits/train/00000" not in drawn_paths(few)
    a, b, c = (replace(FEW, labelled=Labelled(file=file)) for file in lists)
    train(a, tmp_path / "run", console=quiet())
    train(b, tmp_path / "run", resume=True, console=quiet())
    with pytest.raises(
        CheckpointError, match=r"labelled images are others than the run was started with, .*labelled.t"
    ):
        train(c, tmp_path / "run", resume=True, console=quiet())


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            for number in range(8):
                file = tmp_path / "photos" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


def test_a_draw_from_other_images_is_neither_resumed_nor_measured(photos, tmp_path):
    run, recipe = tmp_path / "run", replace(FEW, data=Folder(photos, image_size=32, resize=32))
    recipe = replace(recipe, labelled=Labelled(per_class=4, rest="val"))
    train(recipe, run, console=quiet())
    moved = photos.rename(tmp_path / "elsewhere")
    elsewhere = replace(recipe.data, path=moved)
    found, _ = evaluate_run(run, recipe.evaluation, console=quiet(), data=elsewhere)
    assert found.record.dataset["name"] == "elsewhere/train (8 others)"
    first = drawn_paths(run)[0]
    (moved / first).rename((moved / first).with_name("another.png"))
    with pytest.raises(
        DataError, match=r"others\) is not what .*run was trained on: its labelled.txt has other images"
    ):
        evaluate_run(run, recipe.evaluation, console=quiet(), data=elsewhere)
    with pytest.raises(CheckpointError, match=r"the labelled images are others than the run was started with"):
        train(replace(recipe, data=elsewhere), run, resume=True, console=quiet())


def test_a_run_of_before_there_were_few_labels_is_resumed(tmp_path):
    recipe = varied(tiny(), epochs=1)
    train(recipe, tmp_path, console=quiet())
    saved = Checkpoints(tmp_path)
    content = {key: value for key, value in saved.load().items() if key not in ("schema_version", "labelled_sha256")}
    del content["recipe"]["labelled"]
    saved.save(content, step=content["place"]["step"], best=True)
    train(recipe, tmp_path, resume=True, console=quiet())
    plain = json.loads((tmp_path / "recipe.json").read_text())
    assert plain["labelled"]["rest"] == "unused"


# --- epochs of a few steps ------------------------------------------------------------------------------------------


def test_it_is_validated_and_saved_only_when_asked(few, tmp_path, monkeypatch):
    saved, save = [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, content, **k: (saved.append(k["step"]), save(self, content, **k))[1]
    )
    recipe = varied(FEW, epochs=5, validate_every=2)
    train(recipe, tmp_path / "seldom", console=quiet())
    assert [row["epoch"] for row in read_log(tmp_path / "seldom") if "val_top1" in row] == [1, 3, 4]
    assert saved == [2, 4, 5]
    train(varied(FEW, epochs=5), tmp_path / "always", console=quiet())
    assert_equal_weights(tmp_path / "seldom", tmp_path / "always")


def test_a_signal_between_validations_is_saved_first(tmp_path, monkeypatch):
    """It comes after the epoch's last step has looked for it."""
    recipe = varied(FEW, epochs=4, validate_every=4)
    write = timing.TimingLog.write

    def stopping(self, line):
        write(self, line)
        if line["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(timing.TimingLog, "write", stopping)
        with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM after step 2; continue with"):
            train(recipe, tmp_path / "stopped", console=quiet())
    place = Checkpoints(tmp_path / "stopped").load()["place"]
    assert (place["epoch"], place["step"]) == (2, 2)
    train(recipe, tmp_path / "stopped", resume=True, console=quiet())
    train(recipe, tmp_path / "straight", console=quiet())
    assert_equal_weights(tmp_path / "stopped", tmp_path / "straight")
