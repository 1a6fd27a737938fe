"""Tiny recipes: a paper's recipe with a small network on a small data set, for minutes instead of days.

What is compared stays: the method with the weights of its losses, how many images have labels, what is measured.
Network, data, views, optimiser and length are those of the small recipes in `digits.py`, or, on other data, in
`tiny_imagenet.py`. A tiny recipe cannot reach a paper's numbers, but it can show the effect of a method.
"""

from __future__ import annotations

import math
from dataclasses import replace

from contrex.recipes import digits, excon, tiny_imagenet
from contrex.settings import (
    CGC,
    GCC,
    CGCNoNegatives,
    Data,
    Digits,
    Evaluation,
    ExCon,
    Labelled,
    LinearClassifier,
    Method,
    Model,
    Recipe,
    SupCon,
)

STEPS = 300
"""The number of steps that a run on other data than the digits aims at."""
EPOCHS = (5, 90)
"""The fewest and the most epochs of such a run."""
BATCH = 64
LEAST_SHARE = 0.1
"""The least share of images with labels: one per cent of a few thousand images is less than one of each class."""

NOTES = (
    "A small network on a small data set, for minutes instead of days. Weights of losses, labels and metrics are the "
    "paper's; network, images, views, optimiser, batches, epochs and the number of repetitions are not.",
    "Rows that differ only in their network or data set are one run here, shown in each of their lines.",
    "Content heatmaps are measured at the network's own image size, not with a shorter side of 448. Where the paper "
    "explains a layer of a ResNet, the last feature map is explained; where it measures on another data set, the "
    "run's own is used.",
)
"""What a report says about the scale tiny."""


def tiny(recipe: Recipe, *, data: Data | None = None, model: Model | None = None) -> Recipe:
    """The tiny version of `recipe`, on `data` (None: the built-in digits) with `model` (None: the small network).

    Its length does not fit the data yet: see `fitted`. The weights of `model` are for recipes that start from weights;
    recipes that start at random do so here too.
    """
    parent = digits.supcon() if isinstance(recipe.method, SupCon) else digits.cross_entropy()
    if data is not None and not isinstance(data, Digits):
        parent = (
            excon.supcon_cifar10() if isinstance(recipe.method, SupCon) else tiny_imagenet.ten_classes_cross_entropy()
        )
    shown = parent.data if data is None else data
    batch = BATCH * (2 if recipe.training.batch_size == 256 and isinstance(recipe.method, SupCon) else 1)
    return replace(
        parent,
        name=f"{recipe.name}_tiny",
        data=shown,
        labelled=_labelled(recipe.labelled),
        model=_model(recipe, parent.model if model is None else model),
        method=_method(recipe, parent, shown.image_size),
        training=replace(parent.training, batch_size=batch),
        evaluation=tiny_evaluation(recipe.evaluation, split="val" if recipe.labelled.rest == "val" else _split(shown)),
    )


def fitted(recipe: Recipe, num_images: int) -> Recipe:
    """The tiny recipe with batches and epochs that fit `num_images` labelled training images.

    The learning rate goes with the batch. Digits keep the epochs of their recipe, unless only some have labels.
    """
    batch = max(1, min(recipe.training.batch_size, num_images))
    optimizer = replace(recipe.optimizer, lr=recipe.optimizer.lr * batch / recipe.training.batch_size)
    epochs = recipe.training.epochs
    if recipe.labelled.is_draw or not isinstance(recipe.data, Digits):
        epochs = min(max(math.ceil(STEPS / max(1, num_images // batch)), EPOCHS[0]), EPOCHS[1])
    every = epochs if recipe.labelled.rest == "val" else recipe.training.validate_every  # the rest is many times larger
    training = replace(recipe.training, batch_size=batch, validate_every=every)
    return with_epochs(replace(recipe, optimizer=optimizer, training=training), epochs)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs; where a method or a schedule of steps changes in between, it is at the
    same share of them."""
    method, schedule, share = recipe.method, recipe.schedule, epochs / recipe.training.epochs
    if isinstance(method, ExCon):
        method = replace(method, starting_epoch=round(method.starting_epoch * share))
    if schedule.name == "step":
        milestones = sorted({max(1, round(milestone * share)) for milestone in schedule.milestones})
        schedule = replace(schedule, milestones=tuple(milestones))
    return replace(recipe, method=method, schedule=schedule, training=replace(recipe.training, epochs=epochs))


def tiny_evaluation(evaluation: Evaluation, *, split: str) -> Evaluation:
    """The evaluation for small images and any network: the last feature map is explained."""
    return replace(evaluation, split=split, layer=None, content_heatmap_protocol="native")


def _model(recipe: Recipe, model: Model) -> Model:
    """The network, without weights for a recipe that starts at random."""
    if recipe.model.weights is not None:
        return model
    return replace(model, weights=None, pretrained=False, layout="plain", fresh=())


def _split(data: Data) -> str:
    return "test" if isinstance(data, Digits) else "val"


def _labelled(labelled: Labelled) -> Labelled:
    return labelled if labelled.share is None else replace(labelled, share=max(labelled.share, LEAST_SHARE))


def _method(recipe: Recipe, parent: Recipe, size: int) -> Method:
    """The method with the paper's weights of its losses, on the last feature map of small images."""
    method = recipe.method
    if isinstance(method, (CGC, CGCNoNegatives)):
        return replace(method, layer=None, resolution=size)
    if not isinstance(method, SupCon):
        return replace(method, layer=None) if isinstance(method, GCC) else method
    linear = parent.method.classifier if isinstance(parent.method, SupCon) else LinearClassifier()
    method = replace(method, classifier=linear)
    if not isinstance(method, ExCon):
        return method
    start = round(method.starting_epoch * parent.training.epochs / recipe.training.epochs)
    return replace(method, layer=None, starting_epoch=start)
