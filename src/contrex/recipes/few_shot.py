"""CGC with few images a class (CVPR 2022, section 4.2, "Limited Training Data"): Tables 7 and 8.

In each of 20 episodes 1, 5 or 10 images of each class are drawn from the training images, and the rest of them is the
validation set; baseline and method have the same draws (`--seeds 20`). ResNet-50 with ImageNet weights, whose last
layer starts anew; all layers are fine-tuned. Lambda is 0.8, on FGVC-Aircraft 0.6; tau 0.5; transforms as on ImageNet.

The paper leaves open, and the recipes choose: which images it draws from (the published training part), optimiser,
epochs and steps of the rate (those of ImageNet and of the full sets), and the batch: 64 images, as one of each class
are 100 in the smallest set, with the rate 0.025 that goes with it. The rest has many times more images than are trained
on, so it is validated on at the end only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from contrex.recipes.cgc import BASELINE
from contrex.recipes.fine_grained import AIRCRAFT, CARS, CUB, FLOWERS, fine_tuned
from contrex.settings import CGC, Data, Labelled, Method, Recipe

SHOTS = (1, 5, 10)

SETS: dict[str, tuple[str, Data, float]] = {
    "cub": ("CUB-200-2011", CUB, 0.8),
    "cars": ("Cars-196", CARS, 0.8),
    "aircraft": ("FGVC-Aircraft", AIRCRAFT, 0.6),
    "flowers": ("Flowers-102", FLOWERS, 0.8),
}
"""Name, images and lambda of each data set."""


def _episodes(key: str, shots: int, method_name: str) -> Callable[[], Recipe]:
    title, data, weight = SETS[key]
    method: Method = CGC(weight=weight) if method_name == "cgc" else BASELINE

    def recipe() -> Recipe:
        parent = fine_tuned(f"{key}_{shots}_shot_{method_name}", data, method)
        return replace(
            parent,
            labelled=Labelled(per_class=shots, rest="val"),
            optimizer=replace(parent.optimizer, lr=0.025),
            training=replace(parent.training, batch_size=64, validate_every=parent.training.epochs),
        )

    what = f"CGC with lambda {weight}" if method_name == "cgc" else "baseline"
    images = f"{shots} image{'s' if shots > 1 else ''} a class"
    tables = "Tables 7 and 8" if key in ("cub", "cars") else "Table 7"
    recipe.__doc__ = f"{title}, {images}, ResNet-50 fine-tuned, {what} (CGC, {tables})."
    return recipe


FEW_SHOT: dict[str, Callable[[], Recipe]] = {
    f"{key}_{shots}_shot_{method}": _episodes(key, shots, method)
    for key in SETS
    for shots in SHOTS
    for method in ("cross_entropy", "cgc")
}
"""A recipe for each data set, number of images a class, and method."""
