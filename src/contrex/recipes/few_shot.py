"""CGC with few images a class (CVPR 2022, section 4.2, "Limited Training Data"): Tables 7 and 8.

In each of 20 episodes (`--seeds 20`), 1, 5 or 10 images of each class are drawn from the training images; the others
are the validation set. Baseline and method have the same draws. The network is ResNet-50 with ImageNet weights and a
new last layer; all layers are fine-tuned. Lambda is 0.8 (0.6 on FGVC-Aircraft), tau 0.5, and transforms are as on
ImageNet.

What the paper leaves open is in `OPEN`. The validation set has many times more images than the training set, so it is
used at the end only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from contrex.recipes.cgc import BASELINE
from contrex.recipes.fine_grained import AIRCRAFT, CARS, CUB, FLOWERS, fine_tuned
from contrex.recipes.registry import recipe
from contrex.settings import CGC, Data, Labelled, Method, Recipe, Reference

SHOTS = (1, 5, 10)

OPEN = (
    "which images it draws from (the published training part)",
    "optimiser, epochs and steps of the rate (those of ImageNet and of the full sets)",
    "the batch (64 images, as one of each class are 100 in the smallest set, with the rate 0.025 that goes with it)",
)
"""What the paper leaves open, and what the recipes choose."""

SETS: dict[str, tuple[str, Data, float]] = {
    "cub": ("CUB-200-2011", CUB, 0.8),
    "cars": ("Cars-196", CARS, 0.8),
    "aircraft": ("FGVC-Aircraft", AIRCRAFT, 0.6),
    "flowers": ("Flowers-102", FLOWERS, 0.8),
}
"""Name, images and lambda of each data set."""


def _episodes(key: str, shots: int, row: str) -> Callable[[], Recipe]:
    title, data, weight = SETS[key]
    method: Method = CGC(weight=weight) if row == "cgc" else BASELINE
    tables = ("7", "8") if key in ("cub", "cars") else ("7",)
    experiment = f"{key}_{shots}_shot"

    def make() -> Recipe:
        parent = fine_tuned(experiment, data, method, row)
        return replace(
            parent,
            labelled=Labelled(per_class=shots, rest="val"),
            optimizer=replace(parent.optimizer, lr=0.025),
            training=replace(parent.training, batch_size=64, validate_every=parent.training.epochs),
            reference=Reference("cgc", tables, row, experiment, trials=20, open_points=OPEN),
        )

    what = f"CGC with lambda {weight}" if row == "cgc" else "baseline"
    images = f"{shots} image{'s' if shots > 1 else ''} a class"
    numbers = f"Table{'s' if len(tables) > 1 else ''} {' and '.join(tables)}"
    make.__doc__ = f"{title}, {images}, ResNet-50 fine-tuned, {what} (CGC, {numbers})."
    return make


for _key in SETS:
    for _shots in SHOTS:
        for _row in ("cross_entropy", "cgc"):
            recipe(_episodes(_key, _shots, _row))
