"""CGC's ImageNet experiments with the paper's settings (CVPR 2022): Tables 1-5 and 10, and Table 1 of the supplement.

Section 4, "Implementation Details": SGD, lr 0.1, momentum 0.9, weight decay 1e-4, batch 256, 90 epochs, x0.1 every 30;
tau 0.5; lambda 1.0 for ResNet-18 and 0.5 for ResNet-50; scaling, flipping and translation, which the baseline has too.
Untransformed view: resize 256, central 224. GCC: weight 25, the other settings the same (its published code).

The paper leaves open, and the recipes choose: the views that the cross-entropy of CGC sees (both; its code sums three,
`--method.variant published-code`); lambda without negatives (CGC's; its code's distance is a mean over pixels); and of
ImageNet-100 the list of classes and lambda (ResNet-50's). Baseline and GCC see transformed images only, as in their
published code; the baseline's numbers are those of torchvision's weights.

Content heatmaps are measured as its code does, with a shorter side of 448. Tables 2-4 measure the networks of Table 1
again, on UnRel in Table 3, by contrastive excitation backprop at layer3 in Table 4: `contrex reproduce` does it.

Table 9 has one per cent of ImageNet's training images with labels and all others without, ResNet-50 with SwAV's
weights (`data/swav.pth`), and what its published code sets: 50 epochs of the labelled images, batch 128, rates of 0.02
and 5 for the last layer, x0.2 at epochs 12 and 16, no weight decay, lambda 0.25, tau 0.5, cross-entropy of transformed
views alone. Its unlabelled images are all of the training set; here they are those without labels, which are drawn:
SimCLR's list goes to `--labelled.share None --labelled.file 1percent.txt`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.settings import (
    CGC,
    GCC,
    CGCNoNegatives,
    CrossEntropy,
    Evaluation,
    ImageNet,
    Labelled,
    Method,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    Training,
)

DATA = ImageNet(Path("data/imagenet"))
BASELINE = CrossEntropy(views="transformed")
COMPOSITES = GCC(weight=25.0, views="transformed")


def _resnet18(name: str, method: Method) -> Recipe:
    return Recipe(
        name=name,
        data=DATA,
        model=Model("torchvision:resnet18"),
        method=method,
        optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("step", milestones=(30, 60), gamma=0.1),
        training=Training(epochs=90, batch_size=256, precision="bfloat16", workers=8),
        evaluation=Evaluation(content_heatmap_protocol="published"),
    )


def _resnet50(name: str, method: Method) -> Recipe:
    return replace(_resnet18(name, method), model=Model("torchvision:resnet50"))


# --- ImageNet -------------------------------------------------------------------------------------------------------


def imagenet_resnet18_cross_entropy() -> Recipe:
    """ImageNet, ResNet-18, baseline (CGC, Table 1; lambda 0 of Table 10)."""
    return _resnet18("imagenet_resnet18_cross_entropy", BASELINE)


def imagenet_resnet18_gcc() -> Recipe:
    """ImageNet, ResNet-18, GCC with weight 25 (CGC, Table 1)."""
    return _resnet18("imagenet_resnet18_gcc", COMPOSITES)


def imagenet_resnet18_cgc() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 1.0 (CGC, Tables 1, 5 and 10)."""
    return _resnet18("imagenet_resnet18_cgc", CGC(weight=1.0))


def imagenet_resnet18_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-18, CGC without negatives (CGC, Table 5)."""
    return _resnet18("imagenet_resnet18_cgc_no_negatives", CGCNoNegatives(weight=1.0))


def imagenet_resnet50_cross_entropy() -> Recipe:
    """ImageNet, ResNet-50, baseline (CGC, Tables 1-4)."""
    return _resnet50("imagenet_resnet50_cross_entropy", BASELINE)


def imagenet_resnet50_gcc() -> Recipe:
    """ImageNet, ResNet-50, GCC with weight 25 (CGC, Tables 1 and 4)."""
    return _resnet50("imagenet_resnet50_gcc", COMPOSITES)


def imagenet_resnet50_cgc() -> Recipe:
    """ImageNet, ResNet-50, CGC with lambda 0.5 (CGC, Tables 1-5)."""
    return _resnet50("imagenet_resnet50_cgc", CGC(weight=0.5))


def imagenet_resnet50_cgc_no_negatives() -> Recipe:
    """ImageNet, ResNet-50, CGC without negatives (CGC, Table 5)."""
    return _resnet50("imagenet_resnet50_cgc_no_negatives", CGCNoNegatives(weight=0.5))


# --- the weight of the loss -----------------------------------------------------------------------------------------


def imagenet_resnet18_cgc_lambda_0_01() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.01 (CGC, Table 10)."""
    return _resnet18("imagenet_resnet18_cgc_lambda_0_01", CGC(weight=0.01))


def imagenet_resnet18_cgc_lambda_0_1() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.1 (CGC, Table 10)."""
    return _resnet18("imagenet_resnet18_cgc_lambda_0_1", CGC(weight=0.1))


def imagenet_resnet18_cgc_lambda_0_5() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 0.5 (CGC, Table 10)."""
    return _resnet18("imagenet_resnet18_cgc_lambda_0_5", CGC(weight=0.5))


def imagenet_resnet18_cgc_lambda_2() -> Recipe:
    """ImageNet, ResNet-18, CGC with lambda 2.0 (CGC, Table 10)."""
    return _resnet18("imagenet_resnet18_cgc_lambda_2", CGC(weight=2.0))


# --- ImageNet-100 ---------------------------------------------------------------------------------------------------

HUNDRED = replace(DATA, classes=Path("data/imagenet100.txt"))


def imagenet100_resnet50_cross_entropy() -> Recipe:
    """ImageNet-100, ResNet-50, baseline (CGC, supplement, Table 1)."""
    return replace(_resnet50("imagenet100_resnet50_cross_entropy", BASELINE), data=HUNDRED)


def imagenet100_resnet50_cgc() -> Recipe:
    """ImageNet-100, ResNet-50, CGC with lambda 0.5 (CGC, supplement, Table 1)."""
    return replace(_resnet50("imagenet100_resnet50_cgc", CGC(weight=0.5)), data=HUNDRED)


def imagenet100_resnet50_cgc_no_negatives() -> Recipe:
    """ImageNet-100, ResNet-50, CGC without negatives (CGC, supplement, Table 1)."""
    return replace(_resnet50("imagenet100_resnet50_cgc_no_negatives", CGCNoNegatives(weight=0.5)), data=HUNDRED)


# --- one per cent of the labels -------------------------------------------------------------------------------------


def imagenet_1_percent_cross_entropy() -> Recipe:
    """ImageNet, 1 % of the labels, ResNet-50 from SwAV, baseline without the other images (CGC, Table 9)."""
    return replace(
        _resnet50("imagenet_1_percent_cross_entropy", BASELINE),
        labelled=Labelled(share=0.01),
        model=Model("torchvision:resnet50", weights=Path("data/swav.pth"), layout="swav", fresh=("fc",)),
        optimizer=Optimizer(lr=0.02, head_lr=5.0, momentum=0.9, weight_decay=0.0),
        schedule=Schedule("step", milestones=(12, 16), gamma=0.2),
        training=Training(epochs=50, batch_size=128, precision="bfloat16", workers=8),
        evaluation=Evaluation(metrics=("top1", "top5", "content_heatmap"), content_heatmap_protocol="published"),
    )


def imagenet_1_percent_cgc() -> Recipe:
    """ImageNet, 1 % of the labels, ResNet-50 from SwAV, CGC on the images without (CGC, Table 9)."""
    return replace(
        imagenet_1_percent_cross_entropy(),
        name="imagenet_1_percent_cgc",
        method=CGC(weight=0.25, views="transformed"),
        labelled=Labelled(share=0.01, rest="unlabelled"),
    )
