"""The log of a run: `metrics.jsonl` for machines, lines in the terminal for people (`progress.py` has the bar).

One line per optimiser step and one per epoch. Lines hold nothing that depends on the clock, so two runs of one seed on
a CPU write the same bytes, and a resumed run writes what the uninterrupted one would have written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from contrex.errors import printable
from contrex.records import write_atomically

FILE_NAME = "metrics.jsonl"

VALIDATION, VALIDATION_LOSS = "val_top1", "val_loss"
"""What the line at an epoch's end holds."""
AGREEMENT, DIVERGENCE, KEPT = "val_agreement", "val_divergence", "val_kept"
"""What it holds instead where the validation images have no labels."""


class MetricsLog:
    """Appends to the `metrics.jsonl` of a run folder."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE_NAME

    def rewind(self, *, step: int, epoch: int) -> None:
        """Drop what was written after optimiser step `step`, and the ends of `epoch` and later ones: it will be written
        again. An epoch's end has the number of its last step, which may be saved before it."""
        lines = (line for line in read_log(self.path.parent) if line["step"] <= step)
        kept = [
            json.dumps(line) for line in lines if line["epoch"] < epoch or not {VALIDATION, AGREEMENT} & line.keys()
        ]
        write_atomically(self.path, "".join(f"{line}\n" for line in kept).encode())

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; it must hold the number of optimiser steps done, `step`."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(values)) + "\n")


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line cut short by a crash is left out."""
    return read_lines(run / FILE_NAME)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects, none where there is no file; what follows a damaged line is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError):
            break
    return lines


def curves(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Training curves `name -> [(epoch, value)]`: terms averaged over each epoch, and the validation accuracy."""
    sums: dict[str, dict[int, list[float]]] = {}
    for line in read_log(run):
        for name, value in line.items():
            if name not in ("step", "epoch") and not name.endswith("lr"):
                sums.setdefault(name, {}).setdefault(line["epoch"], []).append(value)
    return {
        name: [(float(epoch + 1), sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
        for name, by_epoch in sums.items()
    }


def say(console: Console, text: str) -> None:
    """Print a line that stays, above the progress bar where there is one."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
