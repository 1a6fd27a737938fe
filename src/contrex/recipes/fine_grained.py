"""CGC's fine-grained experiments with the paper's settings (CVPR 2022, section 4.2): Table 6, and the full training set
of Table 8. The paper takes three trials: `--seeds 3`.

ResNet-50 with ImageNet weights, whose last layer starts anew; all layers are fine-tuned. Lambda is 0.25 on CUB-200 and
Cars-196, 0.5 on FGVC-Aircraft and Flowers-102; tau 0.5; transforms as on ImageNet.

What the paper leaves open is in `OPEN`. Content heatmaps of FGVC-Aircraft are not in its tables. The small sets train
by few steps with batches of 256: CUB-200 by 23 in an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contrex.recipes.cgc import BASELINE
from contrex.recipes.registry import recipe
from contrex.settings import (
    CGC,
    CUB200,
    Data,
    Evaluation,
    FGVCAircraft,
    Flowers102,
    Method,
    Model,
    Optimizer,
    Recipe,
    Reference,
    Schedule,
    StanfordCars,
    Training,
)

CUB = CUB200(Path("data/CUB_200_2011"))
AIRCRAFT = FGVCAircraft(Path("data/fgvc-aircraft-2013b"))
CARS = StanfordCars(Path("data/stanford_cars"))
FLOWERS = Flowers102(Path("data/flowers-102"))


OPEN = (
    "optimiser, batch, epochs and steps of the rate (those of ImageNet, the defaults of its code)",
    "which weights it starts from (a file of torchvision's first ones, `data/resnet50.pth`)",
    "which images of Flowers-102 it trains on (training and validation)",
)
"""What the paper leaves open, and what the recipes choose."""


def fine_tuned(experiment: str, data: Data, method: Method, row: str, *tables: str) -> Recipe:
    """ResNet-50 with ImageNet weights, all layers of which are trained on `data`; `row` is what the paper compares."""
    has_boxes = not isinstance(data, Flowers102)
    return Recipe(
        name=f"{experiment}_{row}",
        data=data,
        model=Model("torchvision:resnet50", weights=Path("data/resnet50.pth"), fresh=("fc",)),
        method=method,
        optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule("step", milestones=(30, 60), gamma=0.1),
        training=Training(epochs=90, batch_size=256, precision="bfloat16", workers=8),
        evaluation=Evaluation(
            metrics=("top1", "content_heatmap") if has_boxes else ("top1",), content_heatmap_protocol="published"
        ),
        reference=Reference("cgc", tables, row, experiment, trials=3, open_points=OPEN),
    )


SETS: dict[str, tuple[str, Data, float, tuple[str, ...]]] = {
    "cub": ("CUB-200-2011", CUB, 0.25, ("6", "8")),
    "aircraft": ("FGVC-Aircraft", AIRCRAFT, 0.5, ("6",)),
    "cars": ("Stanford Cars-196", CARS, 0.25, ("6", "8")),
    "flowers": ("Flowers-102", FLOWERS, 0.5, ("6",)),
}
"""Name, images, lambda and tables of each data set."""


def _of_table(key: str, row: str) -> Callable[[], Recipe]:
    title, data, weight, tables = SETS[key]
    method: Method = CGC(weight=weight) if row == "cgc" else BASELINE

    def make() -> Recipe:
        return fine_tuned(key, data, method, row, *tables)

    what = f"CGC with lambda {weight}" if row == "cgc" else "baseline"
    numbers = "Tables 6 and 8" if len(tables) > 1 else "Table 6"
    make.__doc__ = f"{title}, ResNet-50 fine-tuned, {what} (CGC, {numbers})."
    return make


for _key in SETS:
    for _row in ("cross_entropy", "cgc"):
        recipe(_of_table(_key, _row))
