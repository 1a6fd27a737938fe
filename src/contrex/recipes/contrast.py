"""The masking experiments of "Why Not Other Classes?" (NeurIPS 2022), on five data sets.

AlexNet and VGG-16-BN with ImageNet weights are fine-tuned, and the relative probability of their two most probable
classes under masking is measured.

The published code trains by SGD with lr 1e-3, momentum 0.9 and weight decay 5e-4, batch 128, 200 epochs. In Table 2
(AlexNet) each map keeps the pixels where it is positive, or negative; in Table 3 (VGG-16-BN) both maps keep equally
many pixels (protocol `published-code`). The recipes measure Grad-CAM. `contrex evaluate RUN` takes
`--contrast weighted` for the contrast, and `--explainer hires_cam` for the linear approximation. What the paper leaves
open is in `OPEN`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from contrex.recipes.fine_grained import AIRCRAFT, CARS, CUB, FLOWERS
from contrex.recipes.registry import recipe
from contrex.settings import (
    CrossEntropy,
    Data,
    Evaluation,
    Food101,
    Model,
    Optimizer,
    Recipe,
    Reference,
    RelativeProbability,
    Schedule,
    Training,
)

OPEN = (
    "the schedule (constant)",
    "the views (crops and flips)",
    "which images of FGVC-Aircraft and Flowers-102 it trains on (training and validation)",
    "the weights (files of torchvision's)",
    "the threshold of the second probability (0.1; the published script has 0.4)",
)
"""What the paper leaves open, and what the recipes choose."""

FOOD = Food101(Path("data/food-101"))


def _fine_tuned(name: str, data: Data, network: str, table: str) -> Recipe:
    protocol: Literal["paper", "published-code"] = "paper" if table == "2" else "published-code"
    return Recipe(
        name=name,
        data=data,
        model=Model(f"torchvision:{network}", weights=Path(f"data/{network}.pth"), fresh=("classifier.6",)),
        method=CrossEntropy(views="transformed"),
        optimizer=Optimizer(lr=1e-3, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule("constant"),
        training=Training(epochs=200, batch_size=128, precision="bfloat16", workers=8),
        evaluation=Evaluation(
            metrics=("top1", "relative_probability"), relative_probability=RelativeProbability(protocol=protocol)
        ),
        reference=Reference("contrast", (table,), experiment=name, open_points=OPEN),
    )


def _alexnet(name: str, data: Data) -> Recipe:
    return _fine_tuned(name, data, "alexnet", "2")


def _vgg16_bn(name: str, data: Data) -> Recipe:
    return _fine_tuned(name, data, "vgg16_bn", "3")


@recipe
def cub_alexnet() -> Recipe:
    """CUB-200-2011, AlexNet fine-tuned, positive and negative pixels masked (contrast, Table 2)."""
    return _alexnet("cub_alexnet", CUB)


@recipe
def aircraft_alexnet() -> Recipe:
    """FGVC-Aircraft, AlexNet fine-tuned, positive and negative pixels masked (contrast, Table 2)."""
    return _alexnet("aircraft_alexnet", AIRCRAFT)


@recipe
def food_alexnet() -> Recipe:
    """Food-101, AlexNet fine-tuned, positive and negative pixels masked (contrast, Table 2)."""
    return _alexnet("food_alexnet", FOOD)


@recipe
def flowers_alexnet() -> Recipe:
    """Flowers-102, AlexNet fine-tuned, positive and negative pixels masked (contrast, Table 2)."""
    return _alexnet("flowers_alexnet", FLOWERS)


@recipe
def cars_alexnet() -> Recipe:
    """Stanford Cars-196, AlexNet fine-tuned, positive and negative pixels masked (contrast, Table 2)."""
    return _alexnet("cars_alexnet", CARS)


@recipe
def cub_vgg16_bn() -> Recipe:
    """CUB-200-2011, VGG-16-BN fine-tuned, equally many pixels masked (contrast, Table 3)."""
    return _vgg16_bn("cub_vgg16_bn", CUB)


@recipe
def aircraft_vgg16_bn() -> Recipe:
    """FGVC-Aircraft, VGG-16-BN fine-tuned, equally many pixels masked (contrast, Table 3)."""
    return _vgg16_bn("aircraft_vgg16_bn", AIRCRAFT)


@recipe
def food_vgg16_bn() -> Recipe:
    """Food-101, VGG-16-BN fine-tuned, equally many pixels masked (contrast, Table 3)."""
    return _vgg16_bn("food_vgg16_bn", FOOD)


@recipe
def flowers_vgg16_bn() -> Recipe:
    """Flowers-102, VGG-16-BN fine-tuned, equally many pixels masked (contrast, Table 3)."""
    return _vgg16_bn("flowers_vgg16_bn", FLOWERS)


@recipe
def cars_vgg16_bn() -> Recipe:
    """Stanford Cars-196, VGG-16-BN fine-tuned, equally many pixels masked (contrast, Table 3)."""
    return _vgg16_bn("cars_vgg16_bn", CARS)
