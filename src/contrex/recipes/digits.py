"""The main job in miniature: three methods on the built-in digits, one budget, one seed - CGC's Table 5 in minutes."""

from __future__ import annotations

from dataclasses import replace

from contrex.errors import ArgumentError
from contrex.settings import (
    CGC,
    Augmentation,
    CGCNoNegatives,
    CrossEntropy,
    Digits,
    Evaluation,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    Training,
)

DATA = Digits()


def cross_entropy() -> Recipe:
    """The built-in digits, cross-entropy alone: the baseline."""
    return Recipe(
        name="digits_cross_entropy",
        data=DATA,
        model=Model("contrex:convnet", mean=(0.5,), std=(0.25,)),
        method=CrossEntropy(),
        augmentation=Augmentation(scale=(0.5, 1.0), flip=0.0, where="device"),
        optimizer=Optimizer(lr=0.15, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=5.0),
        schedule=Schedule("cosine", warmup_epochs=1.0),
        training=Training(epochs=12, batch_size=64),
        evaluation=Evaluation(split="test"),
    )


def cgc() -> Recipe:
    """The built-in digits with contrastive Grad-CAM consistency."""
    return replace(cross_entropy(), name="digits_cgc", method=CGC(weight=0.5, resolution=64))


def cgc_no_negatives() -> Recipe:
    """The built-in digits with consistency but without negatives (CGC, Table 5)."""
    return replace(cross_entropy(), name="digits_cgc_no_negatives", method=CGCNoNegatives(weight=0.5, resolution=64))


def comparison(*, seeds: int = 1, shortcut: float = 0.0, epochs: int | None = None) -> list[Recipe]:
    """The three methods, each with `seeds` seeds, on digits with or without a planted shortcut; the baseline first."""
    if seeds < 1:
        raise ArgumentError(f"`seeds` must be at least 1, got {seeds}.")
    return [
        _varied(recipe, seed, shortcut, epochs)
        for recipe in (cross_entropy(), cgc(), cgc_no_negatives())
        for seed in range(seeds)
    ]


def _varied(recipe: Recipe, seed: int, shortcut: float, epochs: int | None) -> Recipe:
    training = replace(recipe.training, seed=seed, epochs=recipe.training.epochs if epochs is None else epochs)
    return replace(recipe, data=replace(DATA, shortcut=shortcut), training=training)
