"""How fast a run is, and how much of that it waits for images: `timing.jsonl`, one line per epoch.

    {"epoch": 0, "steps": 61, "seconds": 8.31, "images_per_second": 469.8, "waited": 0.042}

Times stand in a file of their own, as two runs of one seed write the same `metrics.jsonl`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contrex import ranks
from contrex.records import write_atomically
from contrex.training.log import read_lines

FILE_NAME = "timing.jsonl"

WORTH_SAYING = 0.1
"""The share of the time that is waited for images from which on it is said what to do."""


class Pace:
    """The clock of one epoch, from its first batch on: all steps, and within them the waits for images."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in which a step waits for its images, those of the slowest process in a run of several."""
        began = time.perf_counter()
        self._steps += 1
        yield
        self._waited += time.perf_counter() - began

    def line(self, epoch: int, batch_size: int) -> dict[str, Any]:
        """One line of `timing.jsonl`: the steps of an epoch since the run was started, seconds, and `waited`, the
        share of them that no process could compute in, for want of images."""
        seconds = time.perf_counter() - self._began
        return {
            "epoch": epoch,
            "steps": self._steps,
            "seconds": round(seconds, 3),
            "images_per_second": round(self._steps * batch_size / max(seconds, 1e-9), 1),
            "waited": round(self._waited / max(seconds, 1e-9), 4),
        }


def num_cores() -> int:
    """How many cores of this machine the process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux: what taskset, SLURM and containers leave of them
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class TimingLog:
    """Appends to the `timing.jsonl` of a run folder."""

    def __init__(self, run: Path) -> None:
        self._path, self._has_advised = run / FILE_NAME, False

    def in_words(self, line: dict[str, Any], workers: int) -> str:
        """What a person is told of an epoch's pace; "" where it had no steps.

        That more workers may help is said once in a run, and only where there are cores for more than `workers`.

        >>> line = {"epoch": 0, "steps": 61, "seconds": 8.3, "images_per_second": 1469.8, "waited": 0.042}
        >>> TimingLog(Path("run")).in_words(line, workers=0)
        ', 1,470 images/s'
        """
        if not line["steps"]:
            return ""
        told = f", {line['images_per_second']:,.0f} images/s"
        if line["waited"] <= WORTH_SAYING:
            return told
        told += f", {line['waited']:.0%} of the time waiting for images".replace("%", " %")
        if self._has_advised or (workers + 1) * ranks.world_size() >= num_cores():
            return told
        self._has_advised = True
        return f"{told}: more workers may help (now {workers})"

    def rewind(self, *, epoch: int) -> None:
        """Drop the lines of `epoch` and later ones: they will be written again."""
        kept = [json.dumps(line) for line in read_lines(self._path) if line["epoch"] < epoch]
        write_atomically(self._path, "".join(f"{line}\n" for line in kept).encode())

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def read_timing(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `timing.jsonl`; none where a contrex without it has trained."""
    return read_lines(run / FILE_NAME)
