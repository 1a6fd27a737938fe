"""CGC's ImageNet experiments with the paper's settings (CVPR 2022, section 4, "Implementation Details").

SGD, lr 0.1, momentum 0.9, weight decay 1e-4, batch 256, 90 epochs, x0.1 every 30; tau 0.5; lambda 1.0 for ResNet-18
and 0.5 for ResNet-50. Untransformed view: resize 256, centre crop 224; transform: random resized crop and flip. The
paper does not say which views the cross-entropy sees; its code sums three (`--method.variant published-code`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.settings import (
    CGC,
    CGCNoNegatives,
    CrossEntropy,
    Folder,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    Training,
)


def imagenet_resnet18_cross_entropy() -> Recipe:
    """ImageNet, ResNet-18, baseline (Table 1)."""
    return Recipe(
        name="imagenet_resnet18_cross_entropy",
        data=Folder(Path("data/imagenet")),
        model=Model("torchvision:resnet18"),
        method=CrossEntropy(),
        optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("step", milestones=(30, 60), gamma=0.1),
        training=Training(epochs=90, batch_size=256, precision="bfloat16", workers=8),
    )


def imagenet_resnet18_cgc() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 1.0 (Table 1)."""
    return replace(imagenet_resnet18_cross_entropy(), name="imagenet_resnet18_cgc", method=CGC(weight=1.0))


def imagenet_resnet18_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-18, CGC without negatives (Table 5)."""
    return replace(
        imagenet_resnet18_cross_entropy(), name="imagenet_resnet18_cgc_no_negatives", method=CGCNoNegatives(weight=1.0)
    )


def imagenet_resnet50_cross_entropy() -> Recipe:
    """ImageNet, ResNet-50, baseline (Table 1)."""
    return replace(
        imagenet_resnet18_cross_entropy(),
        name="imagenet_resnet50_cross_entropy",
        model=Model("torchvision:resnet50"),
    )


def imagenet_resnet50_cgc() -> Recipe:
    """ImageNet, ResNet-50, CGC with lambda 0.5 (Table 1)."""
    return replace(imagenet_resnet50_cross_entropy(), name="imagenet_resnet50_cgc", method=CGC(weight=0.5))


def imagenet_resnet50_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-50, CGC without negatives (Table 5)."""
    return replace(
        imagenet_resnet50_cross_entropy(), name="imagenet_resnet50_cgc_no_negatives", method=CGCNoNegatives(weight=0.5)
    )
