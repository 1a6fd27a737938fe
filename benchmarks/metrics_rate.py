"""The rate of `contrex evaluate` on photographs, and the floor beside it: the forward passes it needs.

Top-1, content heatmap and insertion AUC of MobileNetV2 (timm's mobilenetv2_100, `pad_type same`, mean and standard
deviation 0.5), by the real command, process time on one thread, without its start, which is measured on one image. Each
image needs its square once, 28 squares between blur and image, and its whole once, whose forward pass counts by its
number of pixels. The floor is their number times the time of one in a batch of 8, measured before and after the
command.

    python benchmarks/metrics_rate.py --data FOLDER --weights FILE      FOLDER with images of val/ and boxes.csv

glibc gives large tensors back to the system at once and asks for new pages, which the system fills with zeros, for the
next ones. Set before Python starts, this keeps them, for the command and the floor alike:

    MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 python benchmarks/metrics_rate.py ...
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import save, seconds
from torch import Tensor, nn

from contrex import settings
from contrex.data.readers.folder import FolderImages
from contrex.data.views.evaluation import EvaluationViews
from contrex.data.views.squares import view_sizes
from contrex.models import load_classifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 8 if DEVICE.type == "cpu" else 64
"""Images in a pass, as the command has them."""
SIDE = 224
KEEPS_MEMORY = "MALLOC_TRIM_THRESHOLD_" in os.environ


def command(data: Path, weights: Path, output: Path, limit: int) -> list[str]:
    """The command line of the real job."""
    metrics = ["--metrics", "top1", "content_heatmap", "insertion_auc"]
    model = ["--model.name", "timm:mobilenetv2_100", "--model.options", "pad_type", "same", "--model.weights", weights]
    model += ["--model.mean", "0.5", "--model.std", "0.5", "--data.path", data]
    tail = ["--limit", limit, "--output", output]
    return [sys.executable, "-m", "contrex", "evaluate", *map(str, model + metrics + tail)]


def cpu_seconds(arguments: list[str]) -> float:
    """Process time of a command on one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def forward(network: nn.Module, images: Tensor) -> None:
    """The unit."""
    with torch.inference_mode():
        network(images)


def forward_seconds(units: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The mean of many calls of each in turn: what else runs on the machine comes and goes in seconds."""
    times = [{name: seconds(unit, DEVICE) for name, unit in units.items()} for _ in range(22)][2:]
    return {name: statistics.mean(some[name] for some in times) for name in units}


def rate(data: Path, weights: Path, limit: int, steps: int = 28) -> dict[str, Any]:
    """Seconds and images per second of the command, and of the passes it needs."""
    model = settings.Model("timm:mobilenetv2_100", {"pad_type": "same"}, weights=weights, mean=(0.5,), std=(0.5,))
    network = load_classifier(model).network.eval().to(DEVICE)
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=DEVICE)
    last = images.contiguous(memory_format=torch.channels_last)
    folder = settings.Folder(data)
    views = EvaluationViews(
        FolderImages(folder, "val"), view_sizes(folder), whole_side=SIDE, needs_whole=True, gallery=()
    )
    pixels = [views[index].whole.pixels.shape[1:].numel() / SIDE**2 for index in range(limit)]
    units = {"contiguous": partial(forward, network, images), "channels last": partial(forward, network, last)}
    before = forward_seconds(units)
    with tempfile.TemporaryDirectory() as output:
        start = cpu_seconds(command(data, weights, Path(output) / "start", 1))
        total = cpu_seconds(command(data, weights, Path(output) / "run", limit))
    after = forward_seconds(units)
    one = {name: (before[name] + after[name]) / 2 / BATCH for name in units}
    needed = 1 + steps + statistics.mean(pixels)
    taken = (total - start) / (limit - 1)
    return {
        "contrex evaluate": {
            "images": limit,
            "seconds_of_start": round(start, 2),
            "seconds_per_image": round(taken, 4),
            "images_per_second": round(1 / taken, 2),
        },
        "needed": {"forwards_of_a_square": round(needed, 2)},
        **{
            f"floor, {name}": {
                "seconds_per_forward": round(value, 5),
                "images_per_second": round(1 / (needed * value), 2),
                "per_needed": round(taken / (needed * value), 3),
            }
            for name, value in one.items()
        },
    }


def main() -> None:
    """Measure the command on the data and weights of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = "metrics_rate" + ("_memory_kept" if KEEPS_MEMORY else "")
    save(name, rate(given.data, given.weights, given.limit))


if __name__ == "__main__":
    main()
