"""CGC's ImageNet experiments with the paper's settings (CVPR 2022): Tables 1-5 and 10, and Table 1 of the supplement.

Section 4, "Implementation Details": SGD, lr 0.1, momentum 0.9, weight decay 1e-4, batch 256, 90 epochs, x0.1 every 30;
tau 0.5; lambda 1.0 for ResNet-18 and 0.5 for ResNet-50; scaling, flipping and translation, for the baseline too. The
plain view is the central 224 after a resize to 256. GCC has weight 25 and else the same settings (its published code).

What the paper leaves open is in `OPEN`. Baseline and GCC see transformed images only, as in their published code; the
baseline's numbers are those of torchvision's weights.

Content heatmaps are measured as in CGC's code, with a shorter side of 448. Tables 2-4 measure the networks of Table 1
again: Table 3 on UnRel, Table 4 by contrastive excitation backprop at layer3. `contrex reproduce` does that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.recipes.registry import recipe
from contrex.settings import (
    CGC,
    GCC,
    CGCNoNegatives,
    CrossEntropy,
    Evaluation,
    ImageNet,
    Method,
    Model,
    Optimizer,
    Recipe,
    Reference,
    Schedule,
    Training,
)

DATA = ImageNet(Path("data/imagenet"))
BASELINE = CrossEntropy(views="transformed")
COMPOSITES = GCC(weight=25.0, views="transformed")


OPEN = (
    "the views that the cross-entropy of CGC sees (both; its code sums three, `--method.variant published-code`)",
    "lambda without negatives (CGC's; its code's distance is a mean over pixels)",
    "the views of baseline and GCC (transformed ones only, as in their published code)",
    "how the baseline was trained (its numbers are those of torchvision's weights)",
)
"""What the paper leaves open, and what the recipes choose."""


def imagenet(network: str, method: Method, row: str, *tables: str) -> Recipe:
    """The recipe of a row in ImageNet tables. `row` names what the paper compares."""
    experiment = f"imagenet_{network}"
    return Recipe(
        name=f"{experiment}_{row}",
        data=DATA,
        model=Model(f"torchvision:{network}"),
        method=method,
        optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("step", milestones=(30, 60), gamma=0.1),
        training=Training(epochs=90, batch_size=256, precision="bfloat16", workers=8),
        evaluation=Evaluation(content_heatmap_protocol="published"),
        reference=Reference("cgc", tables, row, experiment, open_points=OPEN),
    )


# --- ImageNet -------------------------------------------------------------------------------------------------------


@recipe
def imagenet_resnet18_cross_entropy() -> Recipe:
    """ImageNet, ResNet-18, baseline (CGC, Table 1; lambda 0 of Table 10)."""
    return imagenet("resnet18", BASELINE, "cross_entropy", "1", "10")


@recipe
def imagenet_resnet18_gcc() -> Recipe:
    """ImageNet, ResNet-18, GCC with weight 25 (CGC, Table 1)."""
    return imagenet("resnet18", COMPOSITES, "gcc", "1")


@recipe
def imagenet_resnet18_cgc() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 1.0 (CGC, Tables 1, 5 and 10)."""
    return imagenet("resnet18", CGC(weight=1.0), "cgc", "1", "5", "10")


@recipe
def imagenet_resnet18_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-18, CGC without negatives (CGC, Table 5)."""
    return imagenet("resnet18", CGCNoNegatives(weight=1.0), "cgc_no_negatives", "5")


@recipe
def imagenet_resnet50_cross_entropy() -> Recipe:
    """ImageNet, ResNet-50, baseline (CGC, Tables 1-4)."""
    return imagenet("resnet50", BASELINE, "cross_entropy", "1", "2", "3", "4")


@recipe
def imagenet_resnet50_gcc() -> Recipe:
    """ImageNet, ResNet-50, GCC with weight 25 (CGC, Tables 1 and 4)."""
    return imagenet("resnet50", COMPOSITES, "gcc", "1", "4")


@recipe
def imagenet_resnet50_cgc() -> Recipe:
    """ImageNet, ResNet-50, CGC with lambda 0.5 (CGC, Tables 1-5)."""
    return imagenet("resnet50", CGC(weight=0.5), "cgc", "1", "2", "3", "4", "5")


@recipe
def imagenet_resnet50_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-50, CGC without negatives (CGC, Table 5)."""
    return imagenet("resnet50", CGCNoNegatives(weight=0.5), "cgc_no_negatives", "5")


# --- the weight of the loss -----------------------------------------------------------------------------------------


@recipe
def imagenet_resnet18_cgc_lambda_0_01() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.01 (CGC, Table 10)."""
    return imagenet("resnet18", CGC(weight=0.01), "cgc_lambda_0_01", "10")


@recipe
def imagenet_resnet18_cgc_lambda_0_1() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.1 (CGC, Table 10)."""
    return imagenet("resnet18", CGC(weight=0.1), "cgc_lambda_0_1", "10")


@recipe
def imagenet_resnet18_cgc_lambda_0_5() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.5 (CGC, Table 10)."""
    return imagenet("resnet18", CGC(weight=0.5), "cgc_lambda_0_5", "10")


@recipe
def imagenet_resnet18_cgc_lambda_2() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 2.0 (CGC, Table 10)."""
    return imagenet("resnet18", CGC(weight=2.0), "cgc_lambda_2", "10")


# --- ImageNet-100 ---------------------------------------------------------------------------------------------------

HUNDRED = replace(DATA, classes=Path("data/imagenet100.txt"))
OPEN_OF_HUNDRED = "of ImageNet-100 the list of classes and lambda (ResNet-50's)"


def _imagenet100(method: Method, row: str) -> Recipe:
    experiment = "imagenet100_resnet50"
    reference = Reference("cgc-supplement", ("1",), row, experiment, open_points=(*OPEN, OPEN_OF_HUNDRED))
    return replace(imagenet("resnet50", method, row), name=f"{experiment}_{row}", data=HUNDRED, reference=reference)


@recipe
def imagenet100_resnet50_cross_entropy() -> Recipe:
    """ImageNet-100, ResNet-50, baseline (CGC, supplement, Table 1)."""
    return _imagenet100(BASELINE, "cross_entropy")


@recipe
def imagenet100_resnet50_cgc() -> Recipe:
    """ImageNet-100, ResNet-50, CGC with lambda 0.5 (CGC, supplement, Table 1)."""
    return _imagenet100(CGC(weight=0.5), "cgc")


@recipe
def imagenet100_resnet50_cgc_no_negatives() -> Recipe:
    """ImageNet-100, ResNet-50, CGC without negatives (CGC, supplement, Table 1)."""
    return _imagenet100(CGCNoNegatives(weight=0.5), "cgc_no_negatives")
