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

from collections.abc import Callable
from pathlib import Path

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

SETS: dict[str, tuple[str, Data]] = {
    "cub": ("CUB-200-2011", CUB),
    "aircraft": ("FGVC-Aircraft", AIRCRAFT),
    "food": ("Food-101", Food101(Path("data/food-101"))),
    "flowers": ("Flowers-102", FLOWERS),
    "cars": ("Stanford Cars-196", CARS),
}
"""Name and images of each data set."""

PROTOCOLS: dict[str, tuple[str, str, RelativeProbability]] = {
    "alexnet": ("2", "AlexNet fine-tuned, positive and negative pixels masked", RelativeProbability(protocol="paper")),
    "vgg16_bn": (
        "3",
        "VGG-16-BN fine-tuned, equally many pixels masked",
        RelativeProbability(protocol="published-code"),
    ),
}
"""The paper's table of each network, what is done, and how."""


def _fine_tuned(network: str, key: str) -> Callable[[], Recipe]:
    (title, data), (table, what, masking) = SETS[key], PROTOCOLS[network]
    name = f"{key}_{network}"

    def make() -> Recipe:
        return Recipe(
            name=name,
            data=data,
            model=Model(f"torchvision:{network}", weights=Path(f"data/{network}.pth"), fresh=("classifier.6",)),
            method=CrossEntropy(views="transformed"),
            optimizer=Optimizer(lr=1e-3, momentum=0.9, weight_decay=5e-4),
            schedule=Schedule("constant"),
            training=Training(epochs=200, batch_size=128, precision="bfloat16", workers=8),
            evaluation=Evaluation(metrics=("top1", "relative_probability"), relative_probability=masking),
            reference=Reference("contrast", (table,), experiment=name, open_points=OPEN),
        )

    make.__doc__ = f"{title}, {what} (contrast, Table {table})."
    return make


for _network in PROTOCOLS:
    for _key in SETS:
        recipe(_fine_tuned(_network, _key))
