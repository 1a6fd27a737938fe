"""Every range is checked when the settings are made, by the name that the command line has for the field."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from contrex.errors import ArgumentError
from contrex.settings import (
    CGC,
    Augmentation,
    CGCNoNegatives,
    Digits,
    EnergyGuided,
    Evaluation,
    Folder,
    Model,
    Optimizer,
    Recipe,
    Retrofit,
    Schedule,
    Training,
    UnlabelledPhotos,
)

NAN = math.nan
FOLDER = Folder(Path("data"))


@pytest.mark.parametrize(
    ("settings", "group", "field", "wrong", "right"),
    [
        (Digits(), "data", "num_train", [-1], [1]),
        (Digits(), "data", "num_val", [-1], [0]),
        (Digits(), "data", "num_test", [-1], [0]),
        (Digits(), "data", "num_clutter", [-1], [0]),
        (Digits(), "data", "seed", [-1], [0]),
        (Digits(digit_size=(8, 8)), "data", "image_size", [0, -3], [8]),
        (Digits(), "data", "shortcut", [-0.1, 1.1, NAN], [0.0, 1.0]),
        (Digits(), "data", "digit_size", [(20, 65), (30, 20), (7, 20)], [(8, 64)]),
        (FOLDER, "data", "image_size", [0, -3, 257], [1, 256]),
        (replace(FOLDER, image_size=1), "data", "resize", [0], [1]),
        (FOLDER, "data", "limit_per_class", [0], [1, None]),
        (FOLDER, "data", "classes", [("ant", "cat", "ant")], [(), ("ant", "cat")]),
        (Augmentation(), "augmentation", "scale", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (NAN, 1.0)], [(0.1, 0.1)]),
        (Augmentation(), "augmentation", "ratio", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)], [(1.0, 1.0)]),
        (Augmentation(), "augmentation", "flip", [-0.1, 1.1, NAN], [0.0, 1.0]),
        (Model(), "model", "num_classes", [0], [1, None]),
        (CGC(), "method", "weight", [-1.0, NAN], [0.0]),
        (CGC(), "method", "temperature", [0.0, -1.0, NAN], [0.1]),
        (CGC(), "method", "queue", [-1], [0]),
        (CGC(), "method", "resolution", [0], [1]),
        (CGC(), "method", "views_share", [0.0, 1.1, NAN], [0.25]),
        (CGC(), "method", "consistency_after", [-0.1, 1.0, NAN], [0.0, 0.9]),
        (Retrofit(), "method", "views_share", [0.0, 1.1, NAN], [0.25]),
        (CGCNoNegatives(), "method", "views_share", [0.0, 1.1, NAN], [0.25]),
        (CGCNoNegatives(), "method", "weight", [-1.0], [0.0]),
        (CGCNoNegatives(), "method", "resolution", [0], [1]),
        (EnergyGuided(), "method", "weight", [-1.0, NAN], [0.0]),
        (EnergyGuided(), "method", "boxes", [0.0, 1.1, NAN], [0.01, 1.0]),
        (Retrofit(), "method", "weight", [-1.0, NAN], [0.0]),
        (Retrofit(), "method", "distillation_weight", [-1.0], [0.0]),
        (Retrofit(), "method", "distillation_temperature", [0.0, NAN], [4.0]),
        (Retrofit(), "method", "label_weight", [-0.1], [0.0]),
        (Retrofit(), "method", "teacher_decay", [-0.1, 1.0, NAN], [0.0, 0.99, None]),
        (Retrofit(), "method", "temperature", [0.0], [0.1]),
        (Retrofit(), "method", "queue", [-1], [0]),
        (Retrofit(), "method", "keep_gib", [-1.0, NAN], [0.0]),
        (Retrofit(), "method", "tolerance", [0.0, 0.99, 101.0, NAN], [100.0, None]),
        (Retrofit(), "method", "sure", [-0.1, 1.0, NAN], [0.0]),
        (Retrofit(), "method", "resolution", [0], [1]),
        (UnlabelledPhotos(Path("data")), "data", "val_share", [0.0, 1.0, NAN], [0.01]),
        (UnlabelledPhotos(Path("data")), "data", "val_seed", [-1], [0]),
        (UnlabelledPhotos(Path("data")), "data", "image_size", [0, 257], [1, 256]),
        (Optimizer(), "optimizer", "lr", [0.0, -0.1, NAN, math.inf], [0.1]),
        (Optimizer(), "optimizer", "head_lr", [0.0, -0.1, NAN, math.inf], [5.0, None]),
        (Optimizer(), "optimizer", "momentum", [-0.1, 1.0, NAN], [0.0, 0.9]),
        (Optimizer(), "optimizer", "weight_decay", [-0.1, NAN], [0.0]),
        (Optimizer(), "optimizer", "clip_norm", [0.0, -1.0, NAN], [1.0, None]),
        (Schedule(), "schedule", "warmup_epochs", [-1.0, NAN], [0.0]),
        (Schedule(), "schedule", "milestones", [(60, 30), (3, 3), (0, 3)], [(), (1, 2)]),
        (Schedule(), "schedule", "gamma", [0.0, -0.1], [0.5]),
        (Schedule(), "schedule", "final", [-0.1, 1.1], [0.0, 1.0]),
        (Training(), "training", "epochs", [0], [1]),
        (Training(), "training", "batch_size", [0], [1]),
        (Training(), "training", "ema", [0.0, 1.0, -0.1, NAN], [0.5, None]),
        (Training(), "training", "seed", [-1], [0]),
        (Training(), "training", "workers", [-1], [0]),
        (Training(), "training", "validate_every", [0], [1]),
        (Training(), "training", "checkpoint_minutes", [-1.0, NAN], [0.0, math.inf]),
        (Evaluation(), "evaluation", "metrics", [(), ("top1", "top1")], [("top1",)]),
        (Evaluation(), "evaluation", "insertion_step", [0], [1, None]),
        (Evaluation(), "evaluation", "arcc_fractions", [(0.5, 1.0)], [(0.5,)]),
        (Evaluation(), "evaluation", "equivariance_shares", [(0.125,), (0.004,)], [(0.25, 0.57)]),
        (Evaluation(), "evaluation", "batch_size", [0], [1, None]),
        (Evaluation(), "evaluation", "limit", [0], [1, None]),
        (Evaluation(), "evaluation", "gallery", [-1], [0]),
        (Evaluation(), "evaluation", "num_bootstrap", [0], [1]),
        (Evaluation(), "evaluation", "seed", [-1], [0]),
        (Evaluation(), "evaluation", "workers", [-1], [0]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_ranges(settings, group, field, wrong, right):
    for value in right:
        assert getattr(replace(settings, **{field: value}), field) == value
    for value in wrong:
        with pytest.raises(ArgumentError, match=rf"^`{group}\.{field}` must be .*, got .*\.$"):
            replace(settings, **{field: value})


def test_a_square_is_not_larger_than_the_resized_image():
    message = "`data.image_size` must be from 1 to `data.resize` (256), which it is cut out of, got 300."
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Folder(Path("data"), image_size=300)


def test_nesterov_is_not_ignored():
    with pytest.raises(ArgumentError, match=r"is SGD's, adamw has none: add --optimizer.no-nesterov"):
        Optimizer("adamw", nesterov=True)
    with pytest.raises(ArgumentError, match=r"`optimizer.nesterov` needs `optimizer.momentum` > 0"):
        Optimizer(momentum=0.0, nesterov=True)
    assert Optimizer("adamw").momentum == 0.9


def test_an_explainer_beside_those_that_are_measured_is_not_ignored():
    with pytest.raises(ArgumentError, match=r"`evaluation.explainer` rise, and `evaluation.explainers` grad_cam cam, "):
        Evaluation(explainer="rise", explainers=("grad_cam", "cam"))
    assert len(Evaluation(explainer="cam", explainers=("grad_cam", "cam")).of_each_explainer()) == 2


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_training_makes_no_sigmoids(task):
    with pytest.raises(ArgumentError, match=rf"`evaluation.task` {task} is not for training, which minimises"):
        Recipe("r", Digits(), Model(), CGC(), evaluation=Evaluation(task=task))
    assert Recipe("r", Digits(), Model(), CGC(), evaluation=Evaluation(task="multiclass")).evaluation.task
