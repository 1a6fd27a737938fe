"""A recipe that trains in a second."""

from __future__ import annotations

import io
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from rich.console import Console

from contrex.errors import NonFiniteLossError
from contrex.methods import training_step
from contrex.models import load_classifier
from contrex.settings import CGC, Augmentation, Digits, Evaluation, Model, Optimizer, Recipe, Schedule, Training
from contrex.training import train
from contrex.training.checkpoint import Checkpoints


def tiny(**training) -> Recipe:
    """Three steps an epoch, two epochs, CGC with a queue: everything that has state."""
    options = {"epochs": 2, "batch_size": 8, "seed": 3, "device": "cpu", **training}
    return Recipe(
        name="tiny",
        data=Digits(num_train=26, num_val=10, num_test=12, image_size=32, digit_size=(14, 18), num_clutter=2),
        model=Model("contrex:convnet", options={"widths": "(4, 6)", "strides": "(2, 2)"}, mean=(0.5,), std=(0.25,)),
        method=CGC(weight=0.5, resolution=32, queue=12),
        augmentation=Augmentation(scale=(0.4, 1.0), flip=0.5),
        optimizer=Optimizer(lr=0.05, nesterov=True, clip_norm=5.0),
        schedule=Schedule("cosine", warmup_epochs=1.0),
        training=Training(**options),
        evaluation=Evaluation(
            metrics=("top1", "content_heatmap", "insertion_auc"), split="test", gallery=4, num_bootstrap=50
        ),
    )


def varied(recipe: Recipe, **training) -> Recipe:
    return replace(recipe, training=replace(recipe.training, **training))


def quiet() -> Console:
    return Console(file=io.StringIO())


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def stopped_and_resumed(recipe: Recipe, folder, *, steps) -> None:
    """Train `recipe` in FOLDER/straight; then again, killed in the forward pass of each of `steps` (from 0) with a
    checkpoint after every step, in FOLDER/STEP: the same tensors and the same log, bit for bit."""
    train(recipe, folder / "straight", console=quiet())
    expected = Checkpoints(folder / "straight").load()
    kind = type(training_step(load_classifier(recipe.model, num_classes=2), recipe.method))
    for step in steps:
        run = folder / str(step)
        with mock.patch.object(kind, "forward", _dying(kind.forward, step)), pytest.raises(Killed):
            train(varied(recipe, checkpoint_minutes=0.0), run, console=quiet())
        train(recipe, run, resume=True, console=quiet())
        found = Checkpoints(run).load()
        assert_same({**found, "recipe": None}, {**expected, "recipe": None})
        assert (run / "metrics.jsonl").read_bytes() == (folder / "straight" / "metrics.jsonl").read_bytes()


def _dying(forward, last):
    calls = []

    def dying(self, batch):
        calls.append(1)
        if len(calls) == last + 1:
            raise Killed
        return forward(self, batch)

    return dying


def assert_same(one, other) -> None:
    """Two checkpoints' contents hold the same values, bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def _taken(file: Path) -> bool:
    try:
        with file.open("x") as stream:
            stream.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def at_work(console: Console, *, folder: Path, end: str) -> None:
    """What a job does in the tests of jobs: it says where it is, and ends as `end` says once all have begun."""
    number = next(number for number in (0, 1) if _taken(folder / f"{number}.job"))
    console.print("at work")
    deadline = time.monotonic() + 300
    while len(list(folder.glob("*.job"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == 0 and end == "fails":
        raise NonFiniteLossError("the loss became NaN.")
    if number == 0 and end == "breaks":
        raise ZeroDivisionError("a bug")
    if number == 0 and end == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and end in ("fails", "breaks", "stopped"):
        time.sleep(300)
