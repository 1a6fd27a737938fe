"""A CGC step against a cross-entropy step on the same two views (goal: at most 1.10), and one with views of the last
stage (`view_layer`) against a cross-entropy step on one view (goal: at most 1.25, for a ResNet).

ResNets and the network of the built-in data, forward, backward and the update of SGD.
"""

from __future__ import annotations

import numpy as np
import torch
from measuring import compare, save

from contrex.data.views.batch import Batch, View
from contrex.methods import training_step
from contrex.models import load_classifier
from contrex.ops.geometry import random_crop
from contrex.settings import CGC, CrossEntropy, Model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = [
    ("contrex:convnet", 64, 64),
    ("torchvision:resnet18", 16, 64),
    ("torchvision:resnet50", 4, 64),
    ("torchvision:resnet18", 4, 224),
]
GPU_CASES = [("torchvision:resnet18", 256, 224), ("torchvision:resnet50", 128, 224)]


def batch_of(num: int, side: int) -> Batch:
    """Random images with crops as in ImageNet training, views cut on the device."""
    generator = torch.Generator().manual_seed(0)
    draws = np.random.default_rng(0)
    crop = random_crop(num, side, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, generator=draws)
    images = torch.randint(256, (num, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (num,), generator=generator)
    batch = Batch(images, labels, [""] * num, (View(None, crop),))
    return batch.to(DEVICE, channels_last=True)


def stepper(name: str, method: CrossEntropy | CGC, batch: Batch):
    """One whole optimiser step as a function."""
    torch.manual_seed(0)
    step = training_step(load_classifier(Model(name), num_classes=10), method).to(DEVICE)
    step = step.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(step.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(batch).loss.backward()
        optimizer.step()

    return run


def main() -> None:
    """Measure every case."""
    torch.set_num_threads(1)
    goal = "ratio <= 1.10, ratio_last_stage <= 1.25 for a ResNet"
    figures: dict[str, object] = {"unit": "seconds of one optimiser step", "goal": goal}
    for name, num, side in GPU_CASES if DEVICE.type == "cuda" else CASES:
        batch = batch_of(num, side)
        steppers = {
            "cross_entropy": stepper(name, CrossEntropy(), batch),
            "cgc": stepper(name, CGC(resolution=side), batch),
            "cross_entropy_one_view": stepper(name, CrossEntropy(views="plain"), batch),
            "cgc_last_stage": stepper(name, CGC(resolution=side, views="plain", view_layer="last-stage"), batch),
        }
        medians = compare(steppers, device=DEVICE, rounds=9)
        ratios = {
            "ratio": medians["cgc"] / medians["cross_entropy"],
            "ratio_last_stage": medians["cgc_last_stage"] / medians["cross_entropy_one_view"],
        }
        rounded = {key: round(value, 3) for key, value in ratios.items()}
        figures[f"{name}, batch {num}, {side} px"] = {**medians, **rounded}
    save("training_step", figures)


if __name__ == "__main__":
    main()
