"""Recipes for Tiny-ImageNet (64 x 64 photos, one box each) in image folders, real data that a CPU can train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.recipes.registry import recipe
from contrex.settings import (
    CGC,
    GCC,
    Augmentation,
    CGCNoNegatives,
    CrossEntropy,
    Evaluation,
    Folder,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    Training,
)

TEN_CLASSES = (
    "n01443537",  # goldfish
    "n02002724",  # black stork
    "n02123045",  # tabby
    "n02165456",  # ladybug
    "n03444034",  # go-kart
    "n03662601",  # lifeboat
    "n03837869",  # obelisk
    "n04146614",  # school bus
    "n04399382",  # teddy bear
    "n07873807",  # pizza
)
"""Ten classes that ten minutes of training can tell apart."""


@recipe
def cross_entropy() -> Recipe:
    """All classes at 64 x 64, ResNet-18 with a last feature map of 8 x 8: the baseline.

    The last two stages are dilated instead of strided (`output_stride`), as a map of 2 x 2 could not point at anything.
    """
    return Recipe(
        name="tiny_imagenet_cross_entropy",
        data=Folder(Path("data/tiny_imagenet"), image_size=64, resize=64, inclusive_boxes=True),
        model=Model("timm:resnet18", options={"output_stride": "8"}),
        method=CrossEntropy(),
        augmentation=Augmentation(scale=(0.25, 1.0), flip=0.5),
        optimizer=Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=5.0),
        schedule=Schedule("cosine", warmup_epochs=2.0),
        training=Training(epochs=60, batch_size=128, precision="bfloat16", workers=8),
    )


@recipe
def cgc() -> Recipe:
    """All classes at 64 x 64 with contrastive Grad-CAM consistency."""
    return replace(cross_entropy(), name="tiny_imagenet_cgc", method=CGC(weight=0.5, resolution=64))


@recipe
def cgc_no_negatives() -> Recipe:
    """All classes at 64 x 64 with consistency but without negatives."""
    return replace(
        cross_entropy(), name="tiny_imagenet_cgc_no_negatives", method=CGCNoNegatives(weight=0.5, resolution=64)
    )


@recipe
def gcc() -> Recipe:
    """All classes at 64 x 64 with consistency on composites with images of other classes (GCC)."""
    return replace(cross_entropy(), name="tiny_imagenet_gcc", method=GCC(weight=25.0))


@recipe
def ten_classes_cross_entropy() -> Recipe:
    """Ten classes and the small network: minutes on two CPU cores."""
    parent = cross_entropy()
    return replace(
        parent,
        name="tiny_imagenet10_cross_entropy",
        data=Folder(Path("data/tiny_imagenet"), image_size=64, resize=64, inclusive_boxes=True, classes=TEN_CLASSES),
        model=Model("contrex:convnet"),
        augmentation=replace(parent.augmentation, scale=(0.4, 1.0)),
        training=Training(epochs=40, batch_size=64),
    )


@recipe
def ten_classes_cgc() -> Recipe:
    """Ten classes and the small network with contrastive Grad-CAM consistency."""
    return replace(ten_classes_cross_entropy(), name="tiny_imagenet10_cgc", method=CGC(weight=0.5, resolution=64))


@recipe
def ten_classes_gcc() -> Recipe:
    """Ten classes and the small network with consistency on composites (GCC)."""
    return replace(ten_classes_cross_entropy(), name="tiny_imagenet10_gcc", method=GCC(weight=25.0))


@recipe
def small20_cross_entropy() -> Recipe:
    """Twenty classes of small objects, and a network whose cells see little more than one: the baseline.

    Made for Tiny-ImageNet's classes with the smallest boxes (18 % of the picture on average), where a heatmap on the
    object is not one in the middle.
    """
    parent = cross_entropy()
    return replace(
        parent,
        name="tiny_imagenet_small20_cross_entropy",
        model=Model("contrex:convnet", options={"widths": "(24, 48, 96, 128)", "pointwise": "192"}),
        augmentation=replace(parent.augmentation, scale=(0.4, 1.0)),
        training=Training(epochs=25, batch_size=64),
        evaluation=Evaluation(
            metrics=("top1", "content_heatmap", "content_heatmap_at_spread", "pointing_game", "cgc_loss", "spread")
        ),
    )


@recipe
def small20_cgc() -> Recipe:
    """Twenty classes of small objects with contrastive Grad-CAM consistency."""
    return replace(small20_cross_entropy(), name="tiny_imagenet_small20_cgc", method=CGC(weight=0.5, resolution=64))


@recipe
def small20_cgc_no_negatives() -> Recipe:
    """Twenty classes of small objects with consistency but without negatives."""
    method = CGCNoNegatives(weight=0.5, resolution=64)
    return replace(small20_cross_entropy(), name="tiny_imagenet_small20_cgc_no_negatives", method=method)


@recipe
def small20_gcc() -> Recipe:
    """Twenty classes of small objects with consistency on composites with images of other classes (GCC)."""
    return replace(small20_cross_entropy(), name="tiny_imagenet_small20_gcc", method=GCC(weight=25.0))
