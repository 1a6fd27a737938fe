"""Processor time from the start of a process to its end: what contrex costs beside what it must import.

    python benchmarks/start_up.py --weights mobilenetv2_100_timm_same.pth --photo cat.jpg

User and system time of whole processes, one thread, in turn, the median of `--rounds`. What we promise: listing costs
less than 0.5 s above the bare interpreter; one photo at most 1.15x importing torch, torchvision and timm, making the
network, and one forward pass; `contrex doctor` at most 1.1x what it imports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import save

LIBRARIES = "import torch, torchvision, timm"
FORWARD = f"""{LIBRARIES}, PIL.Image
from torchvision.transforms.functional import to_tensor
network = timm.create_model("mobilenetv2_100", pad_type="same").eval()
network.load_state_dict(torch.load({{weights!r}}, weights_only=True))
image = to_tensor(PIL.Image.open({{photo!r}}).convert("RGB").resize((224, 224)))[None] * 2 - 1
with torch.inference_mode():
    print(network(image).argmax())
"""
DOCTOR = "import torch, torchvision.ops, " + ", ".join(
    ("timm", "numpy", "scipy", "PIL", "safetensors", "sklearn", "matplotlib", "jinja2", "markupsafe", "rich", "tyro")
)
NETWORK = "--model.name timm:mobilenetv2_100 --model.options pad_type same --model.mean 0.5 --model.std 0.5"
LISTINGS = ("--help", "recipes", "explainers", "metrics")


def seconds(command: Sequence[str], folder: Path) -> float:
    """User and system time of one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def commands(weights: Path, photo: Path) -> dict[str, list[str]]:
    """The processes by what they do."""
    python = [sys.executable, "-c"]
    contrex = [sys.executable, "-m", "contrex"]
    explain = ["explain", str(photo), *NETWORK.split(), "--model.weights", str(weights), "--output", "why.png"]
    return {
        "bare": [*python, "pass"],
        **{f"contrex {word}": [*contrex, word] for word in LISTINGS},
        "imports": [*python, LIBRARIES],
        "imports and forward": [*python, FORWARD.format(weights=str(weights), photo=str(photo))],
        "contrex explain": [*contrex, *explain],
        "doctor's imports": [*python, DOCTOR],
        "contrex doctor": [*contrex, "doctor"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="timm's mobilenetv2_100 with pad_type same")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 + options.rounds):  # the first warms the caches of files and of compiled modules
            for name, command in commands(options.weights.resolve(), options.photo.resolve()).items():
                used = seconds(command, Path(folder))
                if number:
                    taken.setdefault(name, []).append(used)
    times = {name: statistics.median(values) for name, values in taken.items()}
    figures = {
        "seconds": {name: round(value, 3) for name, value in times.items()},
        "seconds above bare": {word: round(times[f"contrex {word}"] - times["bare"], 3) for word in LISTINGS},
        "contrex explain / imports and forward": round(times["contrex explain"] / times["imports and forward"], 3),
        "contrex doctor / its imports": round(times["contrex doctor"] / times["doctor's imports"], 3),
    }
    save("start_up", figures, keep=options.keep)


if __name__ == "__main__":
    main()
