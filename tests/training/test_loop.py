import json
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from contrex.errors import ArgumentError, CheckpointError, InterruptedRunError, NonFiniteLossError
from contrex.methods import Step
from contrex.methods.cgc import CGCStep
from contrex.settings import CrossEntropy, Schedule
from contrex.training import curves, load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from training.runs import quiet, tiny, varied


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def weights(folder):
    return Checkpoints(folder).load()["step"]


def assert_same_run(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(tiny(), folder, console=quiet())
    return folder


def fail_at(monkeypatch, step_number, act):
    """Run `act` in the forward pass of optimiser step `step_number` (from 0)."""
    forward, calls = CGCStep.forward, []

    def failing(self, batch):
        calls.append(1)
        if len(calls) == step_number + 1:
            act()
        return forward(self, batch)

    monkeypatch.setattr(CGCStep, "forward", failing)


def test_a_run_leaves_what_it_promises(straight):
    saved = json.loads((straight / "recipe.json").read_text())
    assert saved["training"]["seed"] == 3
    log = read_log(straight)
    assert [line["step"] for line in log] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert all({"loss", "cross_entropy", "consistency", "lr"} <= line.keys() for line in log if "loss" in line)
    found = curves(straight)
    assert [epoch for epoch, _ in found["val_top1"]] == [1.0, 2.0]
    losses = [line["loss"] for line in log if "loss" in line]
    assert found["loss"][0][1] == pytest.approx(sum(losses[:3]) / 3)
    recipe, classifier, classes = load_trained(straight)
    assert recipe == tiny()
    assert classes == tuple("0123456789")
    assert not classifier.network.training
    state = weights(straight)
    assert all(torch.equal(v, state[f"network.{k}"]) for k, v in classifier.network.state_dict().items())


def test_the_same_seed_gives_the_same_bytes(straight, tmp_path):
    torch.manual_seed(99)
    train(tiny(), tmp_path, console=quiet())
    assert_same_run(straight, tmp_path)


def test_another_seed_gives_another_run(straight, tmp_path):
    train(tiny(seed=4), tmp_path, console=quiet())
    assert not torch.equal(weights(straight)["network.fc.weight"], weights(tmp_path)["network.fc.weight"])


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5])
def test_a_killed_and_resumed_run_is_the_uninterrupted_one(straight, tmp_path, monkeypatch, step):
    """Killed in any step, with a checkpoint after every step: the same weights and log, bit for bit."""
    recipe = tiny(checkpoint_minutes=0.0)
    with monkeypatch.context() as patch:
        fail_at(patch, step, lambda: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(recipe, tmp_path, console=quiet())
    train(recipe, tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_without_a_recent_checkpoint_steps_are_repeated_and_logged_once(straight, tmp_path, monkeypatch):
    """Checkpoints at epoch ends only: killed in step 5, the log's lines of epoch 2 are written again, not twice."""
    with monkeypatch.context() as patch:
        fail_at(patch, 5, lambda: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(tiny(), tmp_path, console=quiet())
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 3, 4, 5]
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_resuming_a_finished_run_changes_nothing(straight, tmp_path):
    train(tiny(), tmp_path, console=quiet())
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_resumable_run(straight, tmp_path, monkeypatch, number, code):
    usual = signal.getsignal(number)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            InterruptedRunError, match=f"stopped by {number.name} after step 2; continue with:"
        ) as error:
            train(tiny(), tmp_path, console=quiet())
    assert error.value.exit_code == code
    assert signal.getsignal(number) is usual
    assert Checkpoints(tmp_path).load()["place"]["step"] == 2
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert_same_run(straight, tmp_path)


def test_training_in_a_thread_leaves_signals_alone(straight, tmp_path):
    thread = threading.Thread(target=lambda: train(tiny(), tmp_path, console=quiet()))
    thread.start()
    thread.join()
    assert_same_run(straight, tmp_path)


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(straight, tmp_path):
    recipe = varied(tiny(), workers=2)
    train(recipe, tmp_path, console=quiet())
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize("where", ["worker", "device"])
def test_both_ways_of_cutting_crops_train(tmp_path, where):
    recipe = tiny(epochs=1)
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, where=where))
    train(recipe, tmp_path, console=quiet())
    assert read_log(tmp_path)[-1]["step"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"precision": "bfloat16"}},
        {"optimizer": {"name": "adamw", "lr": 1e-3, "nesterov": False}},
        {"method": {"variant": "published-code"}},
        {"method": {"contrast": "weighted"}},
    ],
)
def test_options_are_not_ignored(straight, tmp_path, change):
    recipe = tiny()
    for part, values in change.items():
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **values)})
    train(recipe, tmp_path, console=quiet())
    assert not torch.equal(weights(straight)["network.fc.weight"], weights(tmp_path)["network.fc.weight"])


# --- refusing, failing ----------------------------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_overwritten(straight):
    with pytest.raises(CheckpointError, match="already holds a run: continue it with --resume"):
        train(tiny(), straight, console=quiet())


def test_another_recipe_is_not_resumed(straight):
    changed = replace(tiny(), method=CrossEntropy(), schedule=Schedule("constant"))
    with pytest.raises(CheckpointError, match=r"different in method, schedule.name, schedule.warmup_epochs"):
        train(changed, straight, resume=True, console=quiet())
    train(varied(tiny(), checkpoint_minutes=1.0), straight, resume=True, console=quiet())


def test_more_images_in_a_batch_than_in_the_set(tmp_path):
    with pytest.raises(ArgumentError, match=r"`training.batch_size` 64 is larger than the training set, 26"):
        train(tiny(batch_size=64), tmp_path, console=quiet())


def test_a_nan_loss_stops_before_the_weights(tmp_path, monkeypatch):
    forward, calls = CGCStep.forward, []

    def poisoned(self, batch):
        output = forward(self, batch)
        calls.append(batch.paths)
        return replace(output, loss=output.loss * torch.nan) if len(calls) == 5 else output

    monkeypatch.setattr(CGCStep, "forward", poisoned)
    with pytest.raises(NonFiniteLossError, match="at step 4 of epoch 1; no single image does it") as error:
        train(tiny(checkpoint_minutes=0.0), tmp_path, console=quiet())
    assert error.value.exit_code == 3
    saved = json.loads((tmp_path / "nonfinite.json").read_text())
    assert saved["paths"] == list(calls[4])
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_images_that_alone_give_nan_are_named(tmp_path, monkeypatch):
    normalise, poison = Step.__init__, []

    def sabotage(self, classifier):
        normalise(self, classifier)
        network = classifier.network
        forward = network.forward

        def broken(images):
            logits = forward(images)
            bad = images.flatten(1).mean(1) > images.flatten(1).mean(1).amin() + 1e-6
            poison.append(int((~bad).sum()))
            return torch.where(bad[:, None], logits, torch.nan)

        network.forward = broken

    monkeypatch.setattr(Step, "__init__", sabotage)
    recipe = replace(tiny(), method=CrossEntropy())
    with pytest.raises(NonFiniteLossError, match="these images alone give non-finite logits: digits/train/"):
        train(recipe, tmp_path, console=quiet())
    assert len(json.loads((tmp_path / "nonfinite.json").read_text())["paths"]) == 1
    assert poison
