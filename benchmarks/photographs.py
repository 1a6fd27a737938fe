"""What retrofits and CGC do on photographs, with a GPU: many short runs side by side, in ten minutes.

Three parts, each a list of `contrex` commands, of which `--jobs` go on at once:

    retrofit      MobileNetV2 and SqueezeNet 1.1, photos without labels: weight of the consistency against weight of the
                  divergence, no negatives, distillation alone, contrasts inside g, all layers, fewer views
    small20       Tiny-ImageNet's twenty classes of small objects from scratch: the four methods and the energy loss
                  with three seeds, CGC with one thing changed at a time, and a retrofit of the trained baseline
    tiny100       a hundred classes of Tiny-ImageNet and ResNet-18: the four methods with two seeds

    python benchmarks/photographs.py DATA --minutes 10                    # with a GPU and some processor cores
    python benchmarks/photographs.py --tiny                               # drawn images, to see that it runs

`DATA` holds `tiny_imagenet_small20` and `tiny_imagenet_100` (Tiny-ImageNet as image folders, with boxes.csv),
`photos_1000` and `photos_ten_classes` (photos, whose names are not read), `imagenet_val_500` (an image folder
with boxes.csv, to measure on) and `weights` (`mobilenetv2_100_timm_same.pth`, `squeezenet1_1_torchvision.pth`).

A job that was done by an earlier call is not done again; what does not fit into `--minutes` is said. `figures.json` in
the folder `--output` has the numbers of each job; paired intervals come from `contrex compare` with the same folders.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from contrex.metrics import bootstrap_interval
from contrex.records import RunRecord, read_run

WEIGHTS = {"mobilenet": "mobilenetv2_100_timm_same.pth", "squeezenet": "squeezenet1_1_torchvision.pth"}
NETWORKS = {
    "mobilenet": "--model timm:mobilenetv2_100 --model.options pad_type same --model.mean 0.5 --model.std 0.5",
    "squeezenet": "--model torchvision:squeezenet1_1",
}
PLAIN = "top1 content_heatmap content_heatmap_at_spread pointing_game cgc_loss spread"
CURVES = f"{PLAIN} insertion_auc deletion_auc"
METHODS = ("cross_entropy", "cgc", "cgc_no_negatives", "gcc")

RETROFITS = {
    "default": "",
    **{
        f"weight-{weight:g}-kl-{kl:g}": f"--offset 0 --method.weight {weight} --method.distillation-weight {kl}"
        for weight, kl in ((1, 10), (4, 10), (0.25, 10), (1, 40), (1, 4), (4, 40), (1, 1), (16, 40), (4, 4))
    },
    "distillation": "--offset 0 --method.weight 0",
    "no-negatives": "--offset 0 --method.no-negatives",
    "no-negatives-kl-1": "--offset 0 --method.no-negatives --method.distillation-weight 1",
    "weighted": "--offset 0 --method.contrast weighted",
    "weighted-weight-4": "--offset 0 --method.contrast weighted --method.weight 4",
    "mean": "--offset 0 --method.contrast mean",
    "all-layers": "--offset 0 --method.trained all --training.epochs 10",
    "all-layers-weight-4": "--offset 0 --method.trained all --training.epochs 10 --method.weight 4",
    "views-share-0.25": "--offset 0 --method.views-share 0.25",
    "epochs-20": "--offset 0 --training.epochs 20",
    "queue-512": "--offset 0 --method.queue 512",
    "temperature-0.1": "--offset 0 --method.temperature 0.1",
    "rate-3e-4-kl-4": "--offset 0 --optimizer.lr 3e-4 --method.distillation-weight 4",
    "e2kd": "--offset 0 --method.no-negatives --method.compared-with teacher --method.incomplete 0",
}
"""By name: what differs from the default of `contrex retrofit`. All but the first keep on to their last epoch, and
leave the offset out, which moves the maps at no change of the network."""
OF_SQUEEZENET = (
    "weight-1-kl-10",
    "weight-4-kl-10",
    "weight-4-kl-4",
    "distillation",
    "no-negatives",
    "weighted-weight-4",
)
WITH_CURVES = ("default", "weight-0.25-kl-10", "weight-1-kl-10", "weight-4-kl-10", "no-negatives", "distillation")
WITH_CONTRASTS = ("default", "weight-1-kl-10", "weight-4-kl-10", "weighted", "weighted-weight-4", "all-layers")

CHANGES = {
    "weight-0.1": "--method.weight 0.1",
    "weight-2": "--method.weight 2",
    "label": "--method.explained label",
    "late": "--method.consistency-after 0.6",
    "label-late": "--method.explained label --method.consistency-after 0.6",
    "mean": "--method.contrast mean",
    "weighted": "--method.contrast weighted",
    "weighted-late": "--method.contrast weighted --method.consistency-after 0.6",
    "layer": "--method.layer features.2",
    "queue-1024": "--method.queue 1024",
    "batch-256": "--training.batch-size 256",
    "views-share-0.25": "--method.views-share 0.25 --method.views plain --method.weight 1",
}
"""What of `tiny_imagenet_small20_cgc` is changed, one thing at a time."""
NETWORKS_OF_20 = {
    "wide": "--model.options widths (64,128,256,256) pointwise 512 --training.epochs 50",
    "small-cells": "--model.options widths (24,48,96,128) strides (2,2,1,1) pointwise 192",
    "large-cells": "--model.options widths (24,48,96,128) strides (2,2,2,2) pointwise 192",
    "field-15": "--model.options widths (24,48,128) strides (2,2,2) pointwise 192",
    "field-47": "--model.options widths (24,48,96,128,128) strides (2,2,2,1,1) pointwise 192",
}
"""Networks that both the baseline and CGC are trained with: other grids of cells, and other fields of a cell (31 pixels
otherwise) on the same grid."""


class Job(NamedTuple):
    """Commands of contrex that follow each other, under one name; what they write is in the folder of that name."""

    name: str
    commands: tuple[str, ...]


def retrofits(data: Path, out: Path, *, tiny: bool) -> Iterator[Job]:
    """The retrofits of the two networks, and what is measured of them besides."""
    measured = f"--evaluate-on folder:{data}/imagenet_val_500"
    photos = f"--images {data}/photos_1000 {data}/photos_ten_classes --training.workers 2 --gallery 0"
    short = "--training.epochs 1 --training.batch-size 4 --image-size 64 --limit 4" if tiny else ""
    for network, weights in WEIGHTS.items():
        of = f"{NETWORKS[network]} --model.weights"
        for name, options in RETROFITS.items():
            if network == "squeezenet" and name not in OF_SQUEEZENET:
                continue
            folder, metrics = out / f"{network}-{name}", CURVES if name in WITH_CURVES else PLAIN
            on = "" if name == "default" else "--method.tolerance None"
            commands = [
                f"retrofit {of} {data}/weights/{weights} {photos} {on} {options} {measured} --metrics {metrics}"
            ]
            commands[0] += f" {short} --folder {folder}"
            if name in WITH_CONTRASTS:
                for when, file in (("before", f"{data}/weights/{weights}"), ("after", f"{folder}/weights.pth")):
                    show = f"evaluate {of} {file} --data folder:{data}/imagenet_val_500 --split val --gallery 0"
                    for contrast in ("mean", "weighted"):
                        more = "relative_probability" if contrast == "weighted" else ""
                        of_maps = f"content_heatmap content_heatmap_at_spread pointing_game {more}"
                        limit = "--limit 4 --data.image-size 64 --data.resize 73" if tiny else ""
                        place = f"{folder}/{when}-{contrast}"
                        commands.append(f"{show} --contrast {contrast} --metrics {of_maps} {limit} --output {place}")
            yield Job(folder.name, tuple(commands))


def small20(data: Path, out: Path, *, tiny: bool) -> Iterator[Job]:
    """The four methods and the energy loss with three seeds; CGC and the energy loss with changes, and other networks,
    with two."""
    photos = data / "tiny_imagenet_small20"
    for name in (*METHODS, "energy"):
        for seed in range(3):
            commands = [train(f"tiny_imagenet_small20_{name}", photos, out / f"small20-{name}-{seed}", seed, tiny=tiny)]
            if name == "cross_entropy":
                commands += [c for weight in (1, 4) for c in retrofit_of(commands[0], photos, weight, tiny=tiny)]
            yield Job(f"small20-{name}-{seed}", tuple(commands))
    for seed in range(2):
        for change, options in CHANGES.items():
            folder = out / f"small20-cgc-{change}-{seed}"
            yield Job(folder.name, (train("tiny_imagenet_small20_cgc", photos, folder, seed, options, tiny=tiny),))
        folder = out / f"small20-energy-few-boxes-{seed}"
        few = f"--method.boxes {0.5 if tiny else 0.1} --method.weight 10"
        yield Job(folder.name, (train("tiny_imagenet_small20_energy", photos, folder, seed, few, tiny=tiny),))
        for network, options in NETWORKS_OF_20.items():
            for name in ("cross_entropy", "cgc"):
                folder = out / f"small20-{network}-{name}-{seed}"
                command = train(f"tiny_imagenet_small20_{name}", photos, folder, seed, options, tiny=tiny)
                yield Job(folder.name, (command,))


def retrofit_of(trained: str, photos: Path, weight: float, *, tiny: bool) -> tuple[str, str]:
    """The commands of a retrofit, on its own training photos, of the network that a command trains, and of its
    measurement."""
    run = trained.rpartition(" ")[2]
    folder, short = f"{run}-retrofit-{weight:g}", "--training.batch-size 4" if tiny else ""
    return (
        f"retrofit {run} --images {photos}/train --offset 0 --method.tolerance None --method.weight {weight} "
        f"--method.resolution 64 --training.workers 2 --training.epochs 3 {short} --folder {folder}",
        f"evaluate --model contrex:convnet --model.options widths (24,48,96,128) pointwise 192 --model.weights "
        f"{folder}/weights.pth --data folder:{photos} --data.image-size 64 --data.resize 64 --data.inclusive-boxes "
        f"--split val --metrics {PLAIN} --gallery 0 --output {folder}/evaluation-val",
    )


def tiny100(data: Path, out: Path, *, tiny: bool) -> Iterator[Job]:
    """A hundred classes and ResNet-18: the four methods with two seeds."""
    for seed in range(2):
        for name in METHODS:
            folder = out / f"tiny100-{name}-{seed}"
            options = f"--training.epochs 30 --evaluation.metrics {PLAIN}"
            photos = data / "tiny_imagenet_100"
            yield Job(folder.name, (train(f"tiny_imagenet_{name}", photos, folder, seed, options, tiny=tiny),))


def train(recipe: str, photos: Path, folder: Path, seed: int, options: str = "", *, tiny: bool) -> str:
    """The command of a run whose views are made on the device, validated and measured at its end alone."""
    last = 1 if tiny else 1000
    short = "--training.epochs 1 --training.batch-size 8 --evaluation.limit 4" if tiny else ""
    return (
        f"train {recipe} --data.path {photos} --augmentation.where device --training.workers 2 "
        f"--training.validate-every {last} --evaluation.gallery 0 --training.seed {seed} {options} {short} "
        f"--folder {folder}"
    )


PARTS = {"retrofit": retrofits, "small20": small20, "tiny100": tiny100}


def work(jobs: Sequence[Job], out: Path, *, at_once: int, deadline: float) -> list[str]:
    """Do the jobs, `at_once` at a time, each once; return the names of those that failed or were not done in time."""
    left: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        if not (out / job.name / "done").exists():
            left.put(job)
    missing: list[str] = []

    def next_ones() -> None:
        while True:
            try:
                job = left.get_nowait()
            except queue.Empty:
                return
            for begun in (out / job.name, *out.glob(f"{job.name}-retrofit-*")):  # by a call that ended before it did
                if begun.is_dir():
                    shutil.rmtree(begun)
            began = time.monotonic()
            if began > deadline or not done(job, out / f"{job.name}.log", deadline):
                missing.append(job.name)
            else:
                (out / job.name / "done").write_text(f"{time.monotonic() - began:.1f} s\n")
                print(f"{job.name}: {time.monotonic() - began:.0f} s", flush=True)

    workers = [threading.Thread(target=next_ones) for _ in range(at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return missing


def done(job: Job, log: Path, deadline: float) -> bool:
    """Run a job's commands one after the other; whether all went well before the deadline."""
    # one thread each: the processes share the cores
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as lines:
        for command in job.commands:
            words = [sys.executable, "-m", "contrex", *command.split()]
            try:
                subprocess.run(
                    words,
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=lines,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=max(1.0, deadline - time.monotonic()),
                )
            except subprocess.TimeoutExpired:
                return False
            except subprocess.CalledProcessError:
                print(f"{job.name} failed, see {log}", flush=True)
                return False
    return True


def figures(out: Path) -> dict[str, dict[str, object]]:
    """What was measured in every folder below `out`: values, and beside those after a retrofit the paired difference to
    before, with its 95 % interval."""
    found: dict[str, dict[str, object]] = {}
    for file in sorted(out.rglob("record.json")):
        folder, run = file.parent, read_run(file.parent)
        values: dict[str, object] = {one.name: one.value for one in run.record.metrics}
        before = folder.with_name(folder.name.replace("after", "before").replace("trained", "before"))
        if before != folder and (before / "record.json").is_file():
            values["differences"] = differences(read_run(before), run)
        found[str(folder.relative_to(out))] = values
    return found


def differences(before: RunRecord, after: RunRecord) -> dict[str, list[float]]:
    """The mean of each metric's differences, image by image, and its 95 % interval."""
    found = {}
    for name, values in after.samples.values.items():
        pairs = torch.tensor(values) - torch.tensor(before.samples.values[name])
        pairs = pairs[~pairs.isnan()].double()
        if len(pairs):
            low, high = bootstrap_interval(pairs, num_resamples=2000, seed=0)
            found[name] = [round(value, 4) for value in (pairs.mean().item(), low, high)]
    return found


def draw(folder: Path) -> Path:
    """Write a few drawn images and weights that were not trained, in the places of the real ones."""
    import timm
    import torchvision

    draws = np.random.default_rng(0)

    def picture(path: Path, side: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(256, size=(side, side, 3), dtype=np.uint8)).save(path)

    for data, splits in (("tiny_imagenet_small20", 12), ("tiny_imagenet_100", 12)):
        rows = ["path,xmin,ymin,xmax,ymax"]
        for split in ("train", "val"):
            for number in range(splits):
                name = f"{split}/n{number % 2}/{number}.png"
                picture(folder / data / name, 64)
                rows.append(f"{name},8,8,40,40")
        (folder / data / "boxes.csv").write_text("\n".join(rows) + "\n")
    for number in range(20):
        picture(folder / f"photos_{'1000' if number % 2 else 'ten_classes'}" / f"{number}.png", 80)
    boxes, labels = ["path,xmin,ymin,xmax,ymax"], ["path,class_index"]
    for number in range(4):
        name = f"val/n{number}/{number}.png"
        picture(folder / "imagenet_val_500" / name, 80)
        boxes.append(f"{name},8,8,60,60")
        labels.append(f"{name},{number}")
    (folder / "imagenet_val_500/boxes.csv").write_text("\n".join(boxes) + "\n")
    (folder / "imagenet_val_500/labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "imagenet_val_500/classes.txt").write_text("".join(f"class {number}\n" for number in range(1000)))
    (folder / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv2_100").state_dict(), folder / "weights" / WEIGHTS["mobilenet"])
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights" / WEIGHTS["squeezenet"])
    return folder


def main() -> None:
    """Do what fits into the time, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="the folder with photos and weights")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", help="the names of the jobs to do; all where it is not given")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--figures", action="store_true", help="only write the figures of what was done already")
    parser.add_argument("--tiny", action="store_true", help="drawn images and a few steps, to see that it runs")
    options = parser.parse_args()
    began = time.monotonic()
    if options.figures:
        (options.output / "figures.json").write_text(json.dumps(figures(options.output), indent=1) + "\n")
        return
    if options.data is None and not options.tiny:
        parser.error("DATA is needed: the folder with photos and weights; or --tiny")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        data = options.data or draw(Path(drawn))
        jobs = [job for part in options.part for job in PARTS[part](data, options.output, tiny=options.tiny)]
        names = [job.name for job in jobs]
        for name in options.only or ():
            if name not in names:
                parser.error(f"--only {name} is none of {', '.join(names)}")
        jobs = [job for job in jobs if job.name in (options.only or names)]
        missing = work(jobs, options.output, at_once=options.jobs, deadline=began + 60 * options.minutes)
    (options.output / "figures.json").write_text(json.dumps(figures(options.output), indent=1) + "\n")
    print(f"{len(jobs) - len(missing)} of {len(jobs)} jobs in {(time.monotonic() - began) / 60:.1f} minutes")
    if missing:
        sys.exit(f"not done: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
