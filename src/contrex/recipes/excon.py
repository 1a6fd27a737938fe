"""ExCon's experiments with the paper's settings (ICLR 2022 submission, Tables 1-8), and small ones for a CPU.

Section 4: SupCon, SupConOri, ExCon and ExConB with ResNet-50 on CIFAR-100 (batch 128 and 256) and on Tiny-ImageNet
(batch 128): 200 epochs, tau 0.1, SGD with lr 0.5, momentum 0.9 and weight decay 1e-4, cosine to a thousandth of the
rate; two views by random resized crop (0.2, 1), flip, colour jitter and greyscale, the classifier's by crop and flip
alone; the weights of the best validation accuracy are measured. Starting epochs: ExCon 0 and 100 (batch 128 and 256),
ExConB 50 on CIFAR-100; 0 on Tiny-ImageNet. The heatmaps are Grad-CAM at `layer2.3.conv3` on CIFAR-100, `layer4.2.conv3`
on Tiny-ImageNet.

The paper leaves open, and the recipes choose: the classifier's optimiser (the encoder's), Tiny-ImageNet's stem (that of
CIFAR, as in the code that the authors started from), the rate within an epoch (it falls at every step). Table 2 has
batch 256 for Tiny-ImageNet, section 4 only 128: the recipes take 128. Tables 2-8 are measured on the networks of
Table 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrex.settings import (
    Augmentation,
    Cifar,
    Data,
    Evaluation,
    ExCon,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    SupCon,
    TinyImageNet,
    Training,
)

METRICS = ("top1", "calibration", "drop_increase", "infidelity", "fgsm", "embedding")

VIEWS = Augmentation(
    scale=(0.2, 1.0), flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, grayscale=0.2
)


def _paper(name: str, data: Data, method: SupCon, batch_size: int) -> Recipe:
    return Recipe(
        name=name,
        data=data,
        model=Model("torchvision:resnet50", stem="cifar"),
        method=method,
        augmentation=VIEWS,
        optimizer=Optimizer(lr=0.5, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("cosine", final=0.001),
        training=Training(epochs=200, batch_size=batch_size, precision="bfloat16", workers=8),
        evaluation=Evaluation(metrics=METRICS, checkpoint="best"),
    )


# --- CIFAR-100 ------------------------------------------------------------------------------------------------------

CIFAR100 = Cifar(Path("data/cifar-100-python"))
STAGE_2 = "layer2.3.conv3"


def supcon_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, SupCon: encoder and classifier in turns (Table 1a)."""
    return _paper("supcon_cifar100", CIFAR100, SupCon(), 128)


def supcon_ori_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, SupConOri: the encoder first, then the classifier (Table 1a)."""
    return _paper("supcon_ori_cifar100", CIFAR100, SupCon(order="encoder-first"), 128)


def excon_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, ExCon from epoch 0 (Table 1a)."""
    return _paper("excon_cifar100", CIFAR100, ExCon(layer=STAGE_2), 128)


def exconb_cifar100() -> Recipe:
    """CIFAR-100, ResNet-50, ExConB from epoch 50 (Table 1a)."""
    return _paper("exconb_cifar100", CIFAR100, ExCon(layer=STAGE_2, background=True, starting_epoch=50), 128)


def supcon_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, SupCon, batch 256 (Table 1a)."""
    return _paper("supcon_cifar100_256", CIFAR100, SupCon(), 256)


def supcon_ori_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, SupConOri, batch 256 (Table 1a)."""
    return _paper("supcon_ori_cifar100_256", CIFAR100, SupCon(order="encoder-first"), 256)


def excon_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, ExCon from epoch 100, batch 256 (Table 1a)."""
    return _paper("excon_cifar100_256", CIFAR100, ExCon(layer=STAGE_2, starting_epoch=100), 256)


def exconb_cifar100_256() -> Recipe:
    """CIFAR-100, ResNet-50, ExConB from epoch 50, batch 256 (Table 1a)."""
    return _paper("exconb_cifar100_256", CIFAR100, ExCon(layer=STAGE_2, background=True, starting_epoch=50), 256)


# --- Tiny-ImageNet --------------------------------------------------------------------------------------------------

TINY = TinyImageNet(Path("data/tiny-imagenet-200"))
STAGE_4 = "layer4.2.conv3"


def supcon_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, SupCon: encoder and classifier in turns (Table 1b)."""
    return _paper("supcon_tiny_imagenet", TINY, SupCon(), 128)


def supcon_ori_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, SupConOri: the encoder first, then the classifier (Table 1b)."""
    return _paper("supcon_ori_tiny_imagenet", TINY, SupCon(order="encoder-first"), 128)


def excon_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, ExCon from epoch 0 (Table 1b)."""
    return _paper("excon_tiny_imagenet", TINY, ExCon(layer=STAGE_4), 128)


def exconb_tiny_imagenet() -> Recipe:
    """Tiny-ImageNet, ResNet-50, ExConB from epoch 0 (Table 1b)."""
    return _paper("exconb_tiny_imagenet", TINY, ExCon(layer=STAGE_4, background=True), 128)


# --- CIFAR-10 on a CPU ----------------------------------------------------------------------------------------------


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


def supcon_ori_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, SupConOri."""
    return replace(supcon_cifar10(), name="supcon_ori_cifar10", method=SupCon(order="encoder-first"))


def excon_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, ExCon from epoch 2."""
    return replace(supcon_cifar10(), name="excon_cifar10", method=ExCon(starting_epoch=2))


def exconb_cifar10() -> Recipe:
    """2,000 images of CIFAR-10 and the small network, ExConB from epoch 2."""
    return replace(supcon_cifar10(), name="exconb_cifar10", method=ExCon(background=True, starting_epoch=2))
