"""ExCon's experiments with the paper's settings (ICLR 2022 submission, Tables 1-8), and small ones for a CPU.

Section 4: SupCon, SupConOri, ExCon and ExConB with ResNet-50 on CIFAR-100 (batch 128 and 256) and on Tiny-ImageNet
(batch 128): 200 epochs, tau 0.1, SGD with lr 0.5, momentum 0.9 and weight decay 1e-4, cosine to a thousandth of the
rate. Two views are made by random resized crop (0.2, 1), flip, colour jitter and greyscale, those of the classifier by
crop and flip. The weights with the best validation accuracy are measured. Starting epochs on CIFAR-100 are 0 and 100
for ExCon (batch 128 and 256) and 50 for ExConB; on Tiny-ImageNet they are 0. The heatmaps are Grad-CAM at
`layer2.3.conv3` on CIFAR-100, `layer4.2.conv3` on Tiny-ImageNet.

What the paper leaves open is in `OPEN`. Tables 2-8 are measured on the networks of Table 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.recipes.registry import recipe
from contrex.settings import (
    Augmentation,
    Cifar,
    Data,
    Evaluation,
    ExCon,
    Model,
    Optimizer,
    Recipe,
    Reference,
    Schedule,
    SupCon,
    TinyImageNet,
    Training,
)

CIFAR100 = Cifar(Path("data/cifar-100-python"))
TINY = TinyImageNet(Path("data/tiny-imagenet-200"))

METRICS = ("top1", "calibration", "drop_increase", "infidelity", "fgsm", "embedding")

VIEWS = Augmentation(
    scale=(0.2, 1.0), flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, grayscale=0.2
)


OPEN = (
    "the classifier's optimiser (the encoder's)",
    "Tiny-ImageNet's stem (that of CIFAR, as in the code that the authors started from)",
    "the rate within an epoch (it falls at every step)",
    "the batch of Tiny-ImageNet (128, as in section 4; Table 2 has 256)",
)
"""What the paper leaves open, and what the recipes choose."""

TABLES = {
    "cifar100": ("1a", "2a", "3a", "5a", "6a"),
    "cifar100_256": ("1a", "2a", "3b", "5b", "6b"),
    "tiny_imagenet": ("1b", "2b", "4", "7", "8"),
}
"""The tables that have numbers of each experiment."""


def _paper(row: str, experiment: str, method: SupCon) -> Recipe:
    data: Data = TINY if experiment == "tiny_imagenet" else CIFAR100
    batch_size = 256 if experiment == "cifar100_256" else 128
    return Recipe(
        name=f"{row}_{experiment}",
        data=data,
        model=Model("torchvision:resnet50", stem="cifar"),
        method=method,
        augmentation=VIEWS,
        optimizer=Optimizer(lr=0.5, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("cosine", final=0.001),
        training=Training(epochs=200, batch_size=batch_size, precision="bfloat16", workers=8),
        evaluation=Evaluation(metrics=METRICS, checkpoint="best"),
        reference=Reference("excon", TABLES[experiment], row, experiment, trials=5, open_points=OPEN),
    )


# --- CIFAR-10 on a CPU ----------------------------------------------------------------------------------------------


@recipe
def supcon_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, SupCon: minutes on two CPU cores."""
    return Recipe(
        name="supcon_cifar10",
        data=Cifar(Path("data/cifar10"), limit_per_class=200),
        model=Model("contrex:convnet", options={"widths": "(32, 64, 96)", "strides": "(1, 2, 2)"}),
        method=SupCon(),
        augmentation=replace(VIEWS, scale=(0.4, 1.0)),
        optimizer=Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=5.0),
        schedule=Schedule("cosine", warmup_epochs=1.0),
        training=Training(epochs=12, batch_size=64),
        evaluation=Evaluation(metrics=METRICS),
    )


@recipe
def supcon_ori_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, SupConOri."""
    return replace(supcon_cifar10(), name="supcon_ori_cifar10", method=SupCon(order="encoder-first"))


@recipe
def excon_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, ExCon from epoch 2."""
    return replace(supcon_cifar10(), name="excon_cifar10", method=ExCon(starting_epoch=2))


@recipe
def exconb_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, ExConB from epoch 2."""
    return replace(supcon_cifar10(), name="exconb_cifar10", method=ExCon(background=True, starting_epoch=2))


# --- CIFAR-100 ------------------------------------------------------------------------------------------------------

STAGE_2 = "layer2.3.conv3"


@recipe
def supcon_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, SupCon: encoder and classifier in turns (Table 1a)."""
    return _paper("supcon", "cifar100", SupCon())


@recipe
def supcon_ori_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, SupConOri: the encoder first, then the classifier (Table 1a)."""
    return _paper("supcon_ori", "cifar100", SupCon(order="encoder-first"))


@recipe
def excon_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, ExCon from epoch 0 (Table 1a)."""
    return _paper("excon", "cifar100", ExCon(layer=STAGE_2))


@recipe
def exconb_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, ExConB from epoch 50 (Table 1a)."""
    return _paper("exconb", "cifar100", ExCon(layer=STAGE_2, background=True, starting_epoch=50))


@recipe
def supcon_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, SupCon, batch 256 (Table 1a)."""
    return _paper("supcon", "cifar100_256", SupCon())


@recipe
def supcon_ori_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, SupConOri, batch 256 (Table 1a)."""
    return _paper("supcon_ori", "cifar100_256", SupCon(order="encoder-first"))


@recipe
def excon_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, ExCon from epoch 100, batch 256 (Table 1a)."""
    return _paper("excon", "cifar100_256", ExCon(layer=STAGE_2, starting_epoch=100))


@recipe
def exconb_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, ExConB from epoch 50, batch 256 (Table 1a)."""
    return _paper("exconb", "cifar100_256", ExCon(layer=STAGE_2, background=True, starting_epoch=50))


# --- Tiny-ImageNet --------------------------------------------------------------------------------------------------

STAGE_4 = "layer4.2.conv3"


@recipe
def supcon_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, SupCon: encoder and classifier in turns (Table 1b)."""
    return _paper("supcon", "tiny_imagenet", SupCon())


@recipe
def supcon_ori_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, SupConOri: the encoder first, then the classifier (Table 1b)."""
    return _paper("supcon_ori", "tiny_imagenet", SupCon(order="encoder-first"))


@recipe
def excon_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, ExCon from epoch 0 (Table 1b)."""
    return _paper("excon", "tiny_imagenet", ExCon(layer=STAGE_4))


@recipe
def exconb_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, ExConB from epoch 0 (Table 1b)."""
    return _paper("exconb", "tiny_imagenet", ExCon(layer=STAGE_4, background=True))
