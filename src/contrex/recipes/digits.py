"""Recipes for the built-in digits: CGC's Table 5 in minutes, its Table 9 with a tenth of the labels, few-shot episodes,
and the four methods of ExCon."""

from __future__ import annotations

from dataclasses import replace

from contrex.errors import ArgumentError
from contrex.recipes.registry import recipe
from contrex.settings import (
    CGC,
    GCC,
    Augmentation,
    CGCNoNegatives,
    CrossEntropy,
    Digits,
    Evaluation,
    ExCon,
    Labelled,
    LinearClassifier,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    SupCon,
    Training,
)

DATA = Digits()

LINEAR = LinearClassifier(optimizer=Optimizer(lr=0.3, weight_decay=0.0))


@recipe
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


@recipe
def cgc() -> Recipe:
    """The built-in digits with contrastive Grad-CAM consistency in the second half of the epochs.

    From the first epoch on, as in the paper, heatmaps of classes that are not learnt yet become small and wrong.
    """
    method = CGC(weight=0.5, resolution=64, consistency_after=0.5)
    return replace(cross_entropy(), name="digits_cgc", method=method)


@recipe
def cgc_no_negatives() -> Recipe:
    """The built-in digits with consistency but without negatives (CGC, Table 5)."""
    method = CGCNoNegatives(weight=0.5, resolution=64, consistency_after=0.5)
    return replace(cross_entropy(), name="digits_cgc_no_negatives", method=method)


@recipe
def gcc() -> Recipe:
    """The built-in digits with consistency on composites with digits of other classes (GCC)."""
    return replace(cross_entropy(), name="digits_gcc", method=GCC(weight=25.0))


@recipe
def ten_percent_cross_entropy() -> Recipe:
    """The built-in digits with 390 labels, cross-entropy alone: the baseline of CGC's Table 9."""
    parent = cross_entropy()
    return replace(
        parent,
        name="digits_10_percent_cross_entropy",
        labelled=Labelled(share=0.1),
        schedule=replace(parent.schedule, warmup_epochs=5.0),
        training=replace(parent.training, epochs=60),
    )


@recipe
def ten_percent_cgc() -> Recipe:
    """The built-in digits with 390 labels, and the heatmaps of the 3,510 other images (CGC, section 4.3)."""
    parent = ten_percent_cross_entropy()
    return replace(
        parent,
        name="digits_10_percent_cgc",
        method=CGC(weight=0.25, resolution=64),
        labelled=replace(parent.labelled, rest="unlabelled"),
    )


@recipe
def few_shot_cross_entropy() -> Recipe:
    """The built-in digits, five of each with a label, cross-entropy: the baseline of few-shot episodes.

    One run is one episode (CGC, section 4.2): `--seeds 20` draws twenty. The other training images are for validation
    and measuring, at the end only. A network could tell so few images apart by their colours, so colours change
    strongly in the transformed views; and the digits are plainer, and larger in their images, than in other recipes.
    """
    parent = cross_entropy()
    return replace(
        parent,
        name="digits_few_shot_cross_entropy",
        data=replace(DATA, num_train=600, num_val=0, image_size=32, digit_size=(22, 30), num_clutter=0),
        model=replace(parent.model, options={"strides": "(2, 2, 1, 1)"}),
        augmentation=replace(parent.augmentation, color_jitter=(0.8, 0.8, 0.8, 0.5), grayscale=0.2),
        training=replace(parent.training, epochs=100, batch_size=50, validate_every=100),
        evaluation=Evaluation(metrics=("top1", "content_heatmap"), split="val"),
        labelled=Labelled(per_class=5, rest="val"),
    )


@recipe
def few_shot_cgc() -> Recipe:
    """The built-in digits, five of each with a label, CGC: the baseline's draws, seed by seed."""
    parent = few_shot_cross_entropy()
    return replace(parent, name="digits_few_shot_cgc", method=CGC(weight=0.5, resolution=32))


@recipe
def supcon() -> Recipe:
    """The built-in digits, SupCon: encoder and classifier in turns.

    The digits are larger and less crowded than in other recipes, the learning rate is small, and colours stay. A
    contrastive loss first learns to ignore the backgrounds; if all embeddings collapse while it does, it takes long to
    come back.
    """
    parent = cross_entropy()
    metrics = ("top1", "content_heatmap", "calibration", "drop_increase", "infidelity", "fgsm", "embedding")
    return replace(
        parent,
        name="digits_supcon",
        data=replace(DATA, num_clutter=3, digit_size=(32, 44)),
        method=SupCon(classifier=LINEAR),
        optimizer=replace(parent.optimizer, lr=0.02),
        training=replace(parent.training, epochs=14),
        evaluation=replace(parent.evaluation, metrics=metrics),
    )


@recipe
def supcon_ori() -> Recipe:
    """The built-in digits, SupConOri: the encoder first, then the classifier."""
    return replace(supcon(), name="digits_supcon_ori", method=SupCon(classifier=LINEAR, order="encoder-first"))


@recipe
def simclr() -> Recipe:
    """The built-in digits, SimCLR: an encoder without labels, then a classifier with them."""
    return replace(
        supcon(), name="digits_simclr", method=SupCon(classifier=LINEAR, order="encoder-first", labels=False)
    )


@recipe
def excon() -> Recipe:
    """The built-in digits, ExCon: from epoch 4 the explanation of an image is one of its views."""
    return replace(supcon(), name="digits_excon", method=ExCon(classifier=LINEAR, starting_epoch=4))


@recipe
def exconb() -> Recipe:
    """The built-in digits, ExConB: ExCon with wrong explanations as negatives."""
    return replace(supcon(), name="digits_exconb", method=ExCon(classifier=LINEAR, starting_epoch=4, background=True))


def comparison(*, seeds: int = 1, shortcut: float = 0.0, epochs: int | None = None) -> list[Recipe]:
    """The recipes of the quickstart: three methods with `seeds` seeds each, the baseline first."""
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
