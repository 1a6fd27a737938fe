"""Better heatmaps for a trained network, from photos without labels.

MobileNetV2 of timm; any network with its weights will do, with its `mean` and `std`. Nothing here is of a paper.
"""

from __future__ import annotations

from pathlib import Path

from contrex.recipes.registry import recipe
from contrex.settings import (
    Augmentation,
    Evaluation,
    Model,
    Optimizer,
    Recipe,
    Retrofit,
    Schedule,
    Training,
    UnlabelledPhotos,
)


@recipe
def photos_retrofit() -> Recipe:
    """Photos without labels, a trained MobileNetV2: its last stage is tuned, its outputs are kept."""
    return Recipe(
        name="photos_retrofit",
        data=UnlabelledPhotos(Path("data/photos")),
        model=Model(
            "timm:mobilenetv2_100", {"pad_type": "same"}, weights=Path("data/mobilenetv2.pth"), mean=(0.5,), std=(0.5,)
        ),
        method=Retrofit(weight=4.0, distillation_weight=10.0, incomplete=0.5, tolerance=99.0, rescale=True),
        augmentation=Augmentation(scale=(0.25, 1.0), flip=0.5, period=3),  # what comes before the last stage is kept
        optimizer=Optimizer("adamw", lr=1e-4, weight_decay=0.0),
        schedule=Schedule("cosine", warmup_epochs=0.5),
        training=Training(epochs=6, batch_size=64, ema=0.95),
        evaluation=Evaluation(
            metrics=("top1", "content_heatmap", "content_heatmap_at_spread", "pointing_game", "cgc_loss")
        ),
    )
