"""Images per second and peak memory of training steps: cross-entropy and CGC, ResNet-50 at 224 pixels in bfloat16.

One process, batch 256, forward, backward and the update of SGD on a batch that is on the device already, channels last;
each as it is and with `--compile`. CGC and the cross-entropy that it is compared with see two views of each image;
`images_per_second` counts images, not views.

`share_of_floor` compares a step with what the device cannot do without: the multiplications of the convolutions and the
linear layer (three times the forward pass, counted by torch) at the rate of one large product of matrices in the same
precision, measured in the same run. A step that only multiplied would have 1.

    python benchmarks/throughput.py                # with a GPU
    python benchmarks/throughput.py --tiny         # shows on any machine that it runs; its figures say nothing

Without a GPU and without `--tiny` it refuses to measure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from measuring import compare, peak_mib, save
from torch.utils.flop_counter import FlopCounterMode
from training_step import DEVICE, batch_of

from contrex.data.views.batch import Batch
from contrex.methods import Step, training_step
from contrex.models import load_classifier
from contrex.settings import CGC, CrossEntropy, Model
from contrex.training.compiling import compile_network


class Case(NamedTuple):
    """What is trained: a network, images per batch and their side, the side of the product that gives the floor's rate,
    and rounds."""

    network: str
    num: int
    side: int
    product: int
    rounds: int


FULL = Case("torchvision:resnet50", 256, 224, 8192, 21)
TINY = Case("contrex:convnet", 4, 32, 64, 2)


def step_of(case: Case, method: CrossEntropy | CGC, batch: Batch, *, compiled: bool) -> Step:
    """The step as the training loop has it: channels last, and compiled as `--training.compile` does it."""
    torch.manual_seed(0)
    step = training_step(load_classifier(Model(case.network), num_classes=10), method).to(DEVICE)
    step = step.to(memory_format=torch.channels_last)
    if compiled:
        compile_network(step, batch.images[:2])
    return step


def optimisation(step: Step, batch: Batch) -> Callable[[], None]:
    """One whole optimiser step as a function."""
    optimizer = torch.optim.SGD(step.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = step(batch).loss
        loss.backward()
        optimizer.step()

    return run


def product(side: int) -> Callable[[], object]:
    """A product of two bfloat16 matrices: as fast as this device multiplies."""
    one, other = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return lambda: one @ other


def operations(case: Case, batch: Batch) -> float:
    """Floating-point operations of one view of the batch, forward and backward: twice the forward's come back."""
    step = step_of(case, CrossEntropy(), batch, compiled=False)  # what is compiled cannot be counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        step.network(step.normalise(batch.images))
    return 3.0 * counter.get_total_flops()


def measure(case: Case, *, keep: bool) -> None:
    """Measure every method, compiled and not, against the product, and save what there is after each."""
    batch = batch_of(case.num, case.side)
    methods = {"cross-entropy, one view": CrossEntropy(views="plain"), "cross-entropy": CrossEntropy()}
    methods["CGC"] = CGC(resolution=case.side)
    rate_of = product(case.product)
    rate = 2 * case.product**3 / compare({"product": rate_of}, device=DEVICE, rounds=case.rounds)["product"]
    floor = operations(case, batch) / rate
    goal = "CGC at most 1.10 times the seconds of cross-entropy on the same two views"
    figures: dict[str, object] = {"case": case._asdict(), "precision": "bfloat16", "goal": goal}
    figures["product_tflops"] = round(rate / 1e12, 3)
    for name, method in methods.items():
        for compiled in (False, True):
            step = step_of(case, method, batch, compiled=compiled)
            run = optimisation(step, batch)
            # the first calls compile, and check the closed form
            seconds = compare({name: run}, device=DEVICE, rounds=case.rounds, warmup=3)[name]
            views = 1 if name.endswith("one view") else 2
            figures[f"{name}, {'compiled' if compiled else 'as it is'}"] = {
                "images_per_second": round(case.num / seconds, 1),
                "seconds": round(seconds, 5),
                "peak_mib": round(peak_mib(run, DEVICE), 1),
                "share_of_floor": round(views * floor / seconds, 4),
            }
            save("throughput", figures, keep=keep)  # a run that is cut off has kept what it measured


def main() -> None:
    """Measure, and keep what was measured on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that the script runs")
    tiny = parser.parse_args().tiny
    if not tiny and DEVICE.type != "cuda":
        sys.exit("a CPU's images per second say nothing about a GPU's: run it where there is one, or try --tiny.")
    case = TINY if tiny else FULL
    measure(case, keep=not tiny)


if __name__ == "__main__":
    main()
