"""Recipes for Oxford-IIIT Pet in image folders: a ResNet-18 is fine-tuned, its last stage from scratch.

The folders may have any number of breeds, so top-5 accuracy is not measured. At 112 pixels the last feature map is
4 x 4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.recipes.registry import recipe
from contrex.settings import (
    CGC,
    Augmentation,
    CrossEntropy,
    Evaluation,
    Folder,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    Training,
)


@recipe
def cross_entropy() -> Recipe:
    """Pets at 112 pixels, ResNet-18 with pretrained lower stages: the baseline."""
    return Recipe(
        name="pets_cross_entropy",
        data=Folder(Path("data/pets"), image_size=112, resize=128, box_kinds=("body_from_trimap",)),
        model=Model("torchvision:resnet18", weights=Path("data/resnet18.pth"), fresh=("layer4", "fc")),
        method=CrossEntropy(),
        augmentation=Augmentation(scale=(0.25, 1.0), flip=0.5),
        optimizer=Optimizer(lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=5.0),
        schedule=Schedule("cosine", warmup_epochs=1.0),
        training=Training(epochs=8, batch_size=32),
        evaluation=Evaluation(metrics=("top1", "content_heatmap", "cgc_loss", "insertion_auc", "deletion_auc")),
    )


@recipe
def cgc() -> Recipe:
    """Pets with contrastive Grad-CAM consistency."""
    return replace(cross_entropy(), name="pets_cgc", method=CGC(weight=0.25, resolution=112))
