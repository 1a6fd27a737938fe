"""A recipe that trains in a second."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from contrex.settings import CGC, Augmentation, Digits, Evaluation, Model, Optimizer, Recipe, Schedule, Training


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
