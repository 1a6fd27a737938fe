"""How long a run would take: its first steps, really made, in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from contrex.settings import Recipe
from contrex.training.loop import train

STEPS = 10


@dataclass(frozen=True)
class Trial:
    """What a run would take, estimated from the median of its first steps.

    Of a method of two phases these are the encoder's, which take longer than the classifier's; ExCon's take longer from
    its starting epoch on. Validation and checkpoints are not in it.
    """

    num_steps: int
    batch_size: int
    seconds_per_step: float

    @property
    def num_images(self) -> int:
        """Training images that the run looks at, each counted once an epoch."""
        return self.num_steps * self.batch_size

    @property
    def seconds(self) -> float:
        """How long the whole run would take."""
        return self.num_steps * self.seconds_per_step


class _EnoughError(Exception):
    """The trial is over."""


def trial(recipe: Recipe, *, steps: int = STEPS) -> Trial:
    """Train the first `steps` steps of `recipe` and throw the result away; images are waited for as in a real run.

    Raises what `train` raises: a recipe that cannot start fails here, in seconds.
    """
    times: list[float] = []
    total = 0

    def on_step(done: int, of: int) -> None:
        nonlocal total
        total = of
        times.append(time.perf_counter())
        if done > steps:
            raise _EnoughError

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        train(recipe, Path(folder) / "trial", console=Console(quiet=True), on_step=on_step)
    # Times between ends of steps: the first step, which warms up caches and workers, is not among them.
    taken = [after - before for before, after in pairwise(times)] or [times[0] - began]
    return Trial(total, recipe.training.batch_size, statistics.median(taken))
