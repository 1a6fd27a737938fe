"""CGC with one per cent of ImageNet's labels (CVPR 2022, section 4.3): Table 9.

One per cent of the training images have labels. The network is ResNet-50 with SwAV's weights (`data/swav.pth`), and the
settings are those of the published code: 50 epochs of the labelled images, batch 128, learning rate 0.02 and 5 for the
last layer, x0.2 at epochs 12 and 16, no weight decay, lambda 0.25, tau 0.5, cross-entropy of transformed views only.
The published code uses the whole training set as unlabelled images; here they are the images without labels. The
labelled images are drawn; for SimCLR's list use `--labelled.share None --labelled.file 1percent.txt`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.recipes.cgc import BASELINE, OPEN, imagenet
from contrex.recipes.registry import recipe
from contrex.settings import CGC, Evaluation, Labelled, Method, Model, Optimizer, Recipe, Reference, Schedule, Training


def _one_per_cent(method: Method, row: str, labelled: Labelled) -> Recipe:
    return replace(
        imagenet("resnet50", method, row),
        name=f"imagenet_1_percent_{row}",
        labelled=labelled,
        model=Model("torchvision:resnet50", weights=Path("data/swav.pth"), layout="swav", fresh=("fc",)),
        optimizer=Optimizer(lr=0.02, head_lr=5.0, momentum=0.9, weight_decay=0.0),
        schedule=Schedule("step", milestones=(12, 16), gamma=0.2),
        training=Training(epochs=50, batch_size=128, precision="bfloat16", workers=8),
        evaluation=Evaluation(metrics=("top1", "top5", "content_heatmap"), content_heatmap_protocol="published"),
        reference=Reference("cgc", ("9",), row, "imagenet_1_percent", open_points=OPEN),
    )


@recipe
def imagenet_1_percent_cross_entropy() -> Recipe:
    """ImageNet, 1 % of the labels, ResNet-50 from SwAV, baseline without the other images (CGC, Table 9)."""
    return _one_per_cent(BASELINE, "cross_entropy", Labelled(share=0.01))


@recipe
def imagenet_1_percent_cgc() -> Recipe:
    """ImageNet, 1 % of the labels, ResNet-50 from SwAV, CGC on the images without (CGC, Table 9)."""
    method = CGC(weight=0.25, views="transformed")
    return _one_per_cent(method, "cgc", Labelled(share=0.01, rest="unlabelled"))
