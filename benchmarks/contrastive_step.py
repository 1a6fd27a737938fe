"""One encoder step of ExCon and ExConB against SupCon's on the same batch, and against what they cannot do without.

Explaining and checking need, beyond SupCon's step, a forward pass of the plain images, the backward pass behind the
explained layer, and a forward pass of the masked images: in eval mode, without gradients of the weights. `floor` is the
sum, each part measured in the same run with nothing else in it. Goal: at most 1.10 floors.

Random weights are hardly ever right, so for ExConB half of the images count as wrong and become background: its floor
starts from SupCon's step with as many images more. Both steps are the paper's variant.

ResNet-18 with the stem for CIFAR at 32 pixels, explained at layer2 and at the last layer, and the network of the
built-in data at 64 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import compare, save
from torch import Tensor, nn

from contrex.data.views.batch import Batch, View
from contrex.methods import SupConStep, training_step
from contrex.models import eval_mode, load_classifier
from contrex.ops.geometry import random_crop
from contrex.settings import ExCon, Model, Stem, SupCon

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NUM_CLASSES = 10


class Case(NamedTuple):
    """A network, the explained layer (the last one has no backward pass to speak of), and a batch."""

    name: str
    stem: Stem
    layer: str
    num: int
    side: int


CASES = [
    Case("torchvision:resnet18", "cifar", "layer4", 32, 32),
    Case("torchvision:resnet18", "cifar", "layer2", 32, 32),
    Case("contrex:convnet", "built-in", "features", 64, 64),
]
GPU_CASES = [
    Case("torchvision:resnet18", "cifar", "layer4", 512, 32),
    Case("torchvision:resnet18", "cifar", "layer2", 512, 32),
    Case("torchvision:resnet50", "cifar", "layer4", 256, 32),
    Case("contrex:convnet", "built-in", "features", 2048, 64),
]


def batch_of(num: int, side: int) -> Batch:
    """Random images with two views each, cut on the device."""
    generator, draws = torch.Generator().manual_seed(0), np.random.default_rng(0)
    crops = [
        random_crop(num, side, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, generator=draws) for _ in range(2)
    ]
    images = torch.randint(256, (num, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(NUM_CLASSES, (num,), generator=generator)
    return Batch(images, labels, [""] * num, tuple(View(None, crop) for crop in crops)).to(DEVICE, channels_last=True)


def step_of(case: Case, method: SupCon) -> Any:
    """The step of `method` around a network of its own, in the memory format of training."""
    torch.manual_seed(0)
    classifier = load_classifier(Model(case.name, stem=case.stem), num_classes=NUM_CLASSES)
    return training_step(classifier, method).to(DEVICE, memory_format=torch.channels_last)


def stepper(step: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One whole optimiser step as a function."""
    optimizer = torch.optim.SGD(step.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return run


def with_more_images(step: SupConStep, batch: Batch, num_more: int) -> Callable[[], None]:
    """SupCon's step on the two views of every image and `num_more` images that are background."""
    more = step.normalise(batch.images[:num_more])

    def loss() -> Tensor:
        views = [step.normalise(batch.views[0].pixels), step.normalise(batch.views[1].pixels), more]
        return step.contrast(torch.cat(views), batch.labels, num_more)

    return stepper(step, loss)


def half_wrong(step: Any, labels: Tensor) -> Any:
    """The step, with classes in place of those it predicts for masked images: right for the first half."""
    predicted, is_right = step._predicted, torch.arange(len(labels), device=DEVICE) < len(labels) // 2

    def decided(images: Tensor) -> Tensor:
        predicted(images)
        return torch.where(is_right, labels, (labels + 1) % NUM_CLASSES)

    step._predicted = decided
    return step


def explanation_passes(case: Case, batch: Batch) -> dict[str, Callable[[], None]]:
    """The passes that explaining and checking need, by hand: a plain forward, and one with the backward pass behind the
    layer, which alone is recorded."""
    step = step_of(case, SupCon())
    network, images = step.network, step.normalise(batch.images)

    def plain() -> None:
        with eval_mode(network), torch.inference_mode():
            network(images)

    def with_backward() -> None:
        kept: list[Tensor] = []

        def record_from_here(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            torch.set_grad_enabled(True)
            return kept[0].clone()  # what follows may write into it

        handle = network.get_submodule(case.layer).register_forward_hook(record_from_here)
        with eval_mode(network), torch.no_grad():
            score = network(images).gather(1, batch.labels[:, None]).sum()
            torch.autograd.grad(score, kept)
        handle.remove()

    return {"plain forward": plain, "forward, and backward behind the layer": with_backward}


def measured(case: Case) -> dict[str, object]:
    """Seconds of each step and of the passes, the floors, and the ratios."""
    batch, half = batch_of(case.num, case.side), case.num // 2
    steps = {
        "supcon": step_of(case, SupCon()),
        "excon": step_of(case, ExCon(layer=case.layer)),
        "exconb": half_wrong(step_of(case, ExCon(layer=case.layer, background=True)), batch.labels),
    }
    functions = {name: stepper(step, lambda step=step: step(batch).loss) for name, step in steps.items()}
    functions["supcon, half as many images more"] = with_more_images(step_of(case, SupCon()), batch, half)
    functions |= explanation_passes(case, batch)
    taken = compare(functions, device=DEVICE, rounds=9)
    passes = taken["plain forward"] + taken["forward, and backward behind the layer"]
    floors = {
        "excon": taken["supcon"] + passes,
        "exconb": taken["supcon, half as many images more"] + passes,
    }
    return {
        "seconds": {name: round(value, 5) for name, value in taken.items()},
        "ratio_to_supcon": {name: round(taken[name] / taken["supcon"], 3) for name in floors},
        "floor_to_supcon": {name: round(floor / taken["supcon"], 3) for name, floor in floors.items()},
        "ratio_to_floor": {name: round(taken[name] / floor, 3) for name, floor in floors.items()},
    }


def main() -> None:
    """Measure every case."""
    torch.set_num_threads(1)
    figures: dict[str, object] = {"unit": "seconds of one optimiser step", "goal": "ratio_to_floor of excon <= 1.10"}
    for case in GPU_CASES if DEVICE.type == "cuda" else CASES:
        key = f"{case.name}, {case.stem} stem, {case.layer}, batch {case.num}, {case.side} px"
        figures[key] = measured(case)
    save("contrastive_step", figures)


if __name__ == "__main__":
    main()
