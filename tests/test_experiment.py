"""Records of runs: where they go, what they say about the weights, and when one is used again."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contrex import experiment
from contrex.errors import ArgumentError, DataError, InterruptedRunError, RecordError
from contrex.experiment import evaluate_model, evaluate_run, evaluate_run_by_each, run_experiment
from contrex.methods.cgc import CGCStep
from contrex.models import build_network
from contrex.settings import Evaluation, Folder, Model, Pointing
from contrex.training import train
from contrex.training.checkpoint import Checkpoints
from training.runs import quiet, tiny

RECIPE = replace(tiny(), evaluation=Evaluation(("top1",), split="test", num_bootstrap=20, device="cpu"))
OPTIONS = RECIPE.evaluation


@pytest.fixture
def run(tmp_path):
    """A run stopped in its second epoch, so that last and best are two checkpoints."""
    folder = tmp_path / "run"
    stopped_after(4, folder)
    return folder


def stopped_after(num_steps, folder):
    forward, calls = CGCStep.forward, []

    def counting(self, batch):
        calls.append(1)
        if len(calls) == num_steps:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CGCStep, "forward", counting)
        with pytest.raises(InterruptedRunError):
            train(RECIPE, folder, console=quiet())


def measured(run, options=OPTIONS, **others):
    record, folder = evaluate_run(run, options, console=quiet(), **others)
    return record.record, folder


def test_a_record_says_which_weights_were_measured(run):
    last, _ = measured(run)
    best, _ = measured(run, replace(OPTIONS, checkpoint="best"))
    told = [record.configuration["checkpoint"] for record in (last, best)]
    assert [(c["name"], c["step"], c["epochs_done"], c["epochs"]) for c in told] == [
        ("last", 4, 1, 2),
        ("best", 3, 1, 2),
    ]
    assert told[0]["sha256"] != told[1]["sha256"]
    assert len(told[0]["sha256"]) == 64


def test_a_record_names_the_file_that_its_weights_are_from(run, monkeypatch):
    """Whatever checkpoint the run has a moment later."""
    first = Checkpoints(run).file()
    real = experiment.measuring._images

    def moment(*args):
        content = Checkpoints(run).load()
        Checkpoints(run).save(content, step=9, best=False)
        return real(*args)

    monkeypatch.setattr(experiment.measuring, "_images", moment)
    assert measured(run)[0].configuration["checkpoint"]["file"] == first != Checkpoints(run).file()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "evaluation-test"),
        ({"split": "val"}, "evaluation-val"),
        ({"workers": 0, "device": "auto"}, "evaluation-test"),
        ({"metrics": ("top1", "content_heatmap")}, "evaluation-test-metrics=top1+content_heatmap"),
        ({"contrast": "weighted", "limit": 3}, "evaluation-test-contrast=weighted-limit=3-limit_by=class"),
        ({"pointing": Pointing(tolerance=3.0)}, "evaluation-test-pointing.tolerance=3.0"),
    ],
)
def test_a_record_is_named_by_what_differs(run, changes, name):
    assert measured(run, replace(OPTIONS, **changes))[1] == run / name


def test_looking_at_a_run_leaves_its_record_alone(run):
    _, folder = measured(run)
    before = (folder / "record.json").read_bytes()
    for options, others in (
        (replace(OPTIONS, contrast="weighted"), {}),
        (replace(OPTIONS, checkpoint="best"), {}),
        (OPTIONS, {"data": replace(RECIPE.data, num_test=5)}),
    ):
        other = measured(run, options, **others)[1]
        assert other.parent == run
        assert other != folder
    assert (folder / "record.json").read_bytes() == before
    assert {path.name for path in run.glob("evaluation*")} == {
        "evaluation-test",
        "evaluation-test-contrast=weighted",
        "evaluation-test-checkpoint=best",
        "evaluation-test-data=Digits",
    }


def test_a_default_name_that_is_taken_gets_a_suffix(run):
    data = [replace(RECIPE.data, num_test=num) for num in (5, 6)]
    first, second, again = (measured(run, data=d)[1] for d in (*data, data[1]))
    assert first.name == "evaluation-test-data=Digits"
    assert second.name.startswith("evaluation-test-data=Digits-")
    assert again == second


def test_an_output_of_other_settings_is_refused(run, tmp_path):
    output = tmp_path / "mine"
    measured(run, output=output)
    measured(run, output=output)
    before = (output / "record.json").read_bytes()
    message = r"`output` .*mine holds another record, which differs in evaluation.contrast: choose another folder"
    with pytest.raises(RecordError, match=message):
        measured(run, replace(OPTIONS, contrast="mean"), output=output)
    with pytest.raises(RecordError, match=r"differs in evaluation.checkpoint, checkpoint.name"):
        measured(run, replace(OPTIONS, checkpoint="best"), output=output)
    assert (output / "record.json").read_bytes() == before
    (output / "record.json").write_text("{}")
    with pytest.raises(RecordError, match=r"holds another record"):
        measured(run, output=output)


def test_other_data_are_measured_and_must_have_the_runs_classes(run, tmp_path):
    record, _ = measured(run, data=replace(RECIPE.data, num_test=5))
    assert record.dataset["num_images"] == 5
    assert record.configuration["data"]["num_test"] == 5
    for index in range(10):
        (tmp_path / "photos" / "test" / f"class{index}").mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"photos/test/class{index}/a.png")
    with pytest.raises(DataError, match=r"photos/test does not have the classes .* class0, .* instead of 0, 1, 2"):
        measured(run, data=Folder(tmp_path / "photos", image_size=32, resize=32))


def test_an_experiment_measures_new_weights_and_nothing_twice(tmp_path, monkeypatch):
    run, evaluations = tmp_path / "tiny-seed3", []
    stopped_after(4, run)
    measured(run)
    measured(run, replace(OPTIONS, contrast="weighted"))
    real = experiment.measuring.evaluate_each
    monkeypatch.setattr(
        experiment.measuring, "evaluate_each", lambda s, o, **k: (evaluations.append(s.checkpoint), real(s, o, **k))[1]
    )

    def found():
        (report,) = run_experiment([RECIPE], tmp_path, splits=["test"], console=quiet(), title="t")
        return report.runs[0].record

    first = found()
    assert first.configuration["checkpoint"]["step"] == 6
    assert first.configuration["evaluation"]["contrast"] is None
    assert len(evaluations) == 1
    assert found() == first
    assert len(evaluations) == 1
    record = json.loads((run / "evaluation-test" / "record.json").read_text())
    record["configuration"]["evaluation"]["limit"] = 2  # a record of other settings under the default name
    (run / "evaluation-test" / "record.json").write_text(json.dumps(record))
    assert found().configuration["evaluation"]["limit"] is None
    assert len(evaluations) == 2


def test_several_explainers_have_a_record_each_in_the_usual_folders(run, tmp_path):
    options = replace(OPTIONS, metrics=("top1", "content_heatmap"))
    several = replace(options, explainers=("grad_cam", "rise(num_masks=8)", "rise(num_masks=9)"))
    found = evaluate_run_by_each(run, several, console=quiet())
    assert [folder.name for _, folder in found] == [
        "evaluation-test-metrics=top1+content_heatmap",
        "evaluation-test-metrics=top1+content_heatmap-explainer=rise-num_masks=8",
        "evaluation-test-metrics=top1+content_heatmap-explainer=rise-num_masks=9",
    ]
    for (record, folder), text in zip(found, several.explainers, strict=True):
        assert record.record.configuration["evaluation"]["explainer"] == text
        alone, same = measured(run, replace(options, explainer=text))
        assert same == folder
        assert alone.metrics == record.record.metrics
        assert alone.configuration == record.record.configuration
    below = evaluate_run_by_each(run, several, console=quiet(), output=tmp_path / "out")
    assert [folder.name for _, folder in below] == ["grad_cam", "rise-num_masks=8", "rise-num_masks=9"]
    with pytest.raises(ArgumentError, match=r"names 3 explainers, .* call evaluate_run_by_each"):
        evaluate_run(run, several, console=quiet())


@pytest.mark.slow
def test_an_experiment_measures_with_each_explainer_and_nothing_twice(tmp_path, monkeypatch):
    asked, real = [], experiment.measuring.evaluate_each
    monkeypatch.setattr(
        experiment.measuring, "evaluate_each", lambda s, o, **k: (asked.append(o.explainers), real(s, o, **k))[1]
    )
    recipe = replace(RECIPE, evaluation=replace(OPTIONS, metrics=("content_heatmap",), explainers=("cam", "gradient")))
    for _ in range(2):
        (report,) = run_experiment([recipe], tmp_path, splits=["test"], console=quiet(), title="t")
        told = [run.record.configuration["evaluation"]["explainer"] for run in report.runs]
        assert told == ["cam", "gradient"]
    more = replace(recipe, evaluation=replace(recipe.evaluation, explainers=("cam", "hires_cam", "gradient")))
    experiment.measuring.measure_run_by_each(tmp_path / "tiny-seed3", more.evaluation, console=quiet())
    assert asked == [("cam", "gradient"), ("hires_cam",)]


def test_models_do_not_share_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "val" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"photos/val/{name}/a.png")
    data, options = Folder(tmp_path / "photos", image_size=32, resize=32), replace(OPTIONS, split="val")
    model = Model("contrex:convnet", num_classes=2, weights=tmp_path / "w.pth")

    def folder(seed, **others):
        torch.manual_seed(seed)
        torch.save(build_network(model.name, {}, num_classes=2).state_dict(), model.weights)
        return evaluate_model(model, data, options, console=quiet(), **others)[1]

    first, again, other, named = folder(0), folder(0), folder(1), folder(1, name="my net")
    assert first == again
    assert str(first) == "runs/evaluation-contrex-convnet"
    assert str(other).startswith("runs/evaluation-contrex-convnet-")
    assert str(named) == "runs/evaluation-my-net"
    with pytest.raises(RecordError, match=r"which differs in checkpoint.sha256"):
        folder(1, output=first)
    with pytest.raises(DataError, match=r"photos/val has 'dog' as class 1, the network as class 0, so labels would be"):
        evaluate_model(replace(model, classes=("dog", "cat")), data, options, console=quiet())
