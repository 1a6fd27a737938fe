"""Sharing runs among processes: each trains and measures the next run that nobody works on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from contrex import ranks
from contrex.errors import ArgumentError, BusyRunError, printable
from contrex.experiment.folders import record_name, recorded_configuration
from contrex.experiment.measuring import measure_run_by_each
from contrex.records import to_plain
from contrex.records.scopes import differing
from contrex.settings import Data, Evaluation, Recipe, run_name
from contrex.training import train
from contrex.training.checkpoint import Checkpoints
from contrex.training.jobs import spread
from contrex.training.lock import locked

POLL = 1.0
"""Seconds between two looks at the runs that other processes work on."""


@dataclass(frozen=True)
class Task:
    """A run to train, and the ways to measure it: each an evaluation, and data or None for the run's own."""

    recipe: Recipe
    ways: Sequence[tuple[Evaluation, Data | None]]


def carry_out(tasks: Sequence[Task], folder: Path, *, console: Console, jobs: int = 1) -> list[list[Path]]:
    """Train and measure every task that is not done yet; return the folders of the records, one list per task.

    A task has a record for each way of measuring and each explainer that it names.

    Every process that is given the same tasks and the same folder shares the work, on this machine or on another that
    has the folder too. Each takes the next run that is neither done nor being worked on, and all wait for the last one.
    `jobs` processes work here.

    Raises:
        ArgumentError: `jobs` is below 1, or above 1 where torchrun has started several processes.
        ProcessError: one of the jobs failed; the message is its own.
    """
    if jobs < 1:
        raise ArgumentError(f"`jobs` must be at least 1, got {jobs}.")
    if jobs > 1:
        if ranks.world_size() > 1:
            raise ArgumentError(
                f"`jobs` {jobs} is for single processes, and torchrun started {ranks.world_size()}: set it to 1."
            )
        num_left = sum(None in _done(task, folder) for task in tasks)
        if num_left > 1:  # a single one is carried out here
            spread(partial(_finish_all, tasks, folder), min(jobs, num_left), console=console)
    return _finish_all(tasks, folder, console)


def _finish_all(tasks: Sequence[Task], folder: Path, console: Console) -> list[list[Path]]:
    """Go through the runs until all are trained and measured, here or elsewhere; return the folders of the records."""
    done: dict[int, list[Path]] = {}
    is_told = False
    while len(done) < len(tasks):
        before = len(done)
        for number, task in enumerate(tasks):
            place = f"{run_name(task.recipe)}, run {number + 1} of {len(tasks)}"
            if number not in done and (records := _finish_one(task, folder, console, place)) is not None:
                done[number] = records
        if len(done) == before:
            if not is_told:
                console.print(f"waiting for {len(tasks) - before} runs that other processes work on", highlight=False)
            is_told = True
            time.sleep(POLL)
    return [done[number] for number in range(len(tasks))]


def _finish_one(task: Task, folder: Path, console: Console, place: str) -> list[Path] | None:
    """Train and measure one run unless that is done; return its records' folders, or None if it is in other hands."""
    recipe, run = task.recipe, folder / run_name(task.recipe)
    done = ranks.from_first(lambda: _done(task, folder))
    if None not in done:
        return [record for record in done if record is not None]
    try:
        with locked(run):
            console.print(printable(place), highlight=False, markup=False)
            train(recipe, run, resume=True, console=console)
            measured = [measure_run_by_each(run, options, console=console, data=data) for options, data in task.ways]
            return [record for records in measured for record in records]
    except BusyRunError:
        return None


def _done(task: Task, folder: Path) -> list[Path | None]:
    """The folder of each of a task's records, None for those that are not there yet."""
    ways = [(way, data) for options, data in task.ways for way in options.of_each_explainer()]
    return [finished(folder / run_name(task.recipe), task.recipe, *way) for way in ways]


def finished(run: Path, recipe: Recipe, options: Evaluation, data: Data | None = None) -> Path | None:
    """The folder with the record of a finished run that was measured with these options; None where there is none.

    It is told without reading weights or images: the record names the checkpoint file that it measured.
    """
    file = Checkpoints(run).finished(options.checkpoint)
    used = recipe.data if data is None else data
    folder = run / record_name(recipe, options, used)
    recorded = None if file is None else recorded_configuration(folder)
    if not recorded or recorded.get("checkpoint", {}).get("file") != file:
        return None
    expected = {**to_plain(replace(recipe, data=used)), "evaluation": to_plain(options)}
    others = differing({name: value for name, value in recorded.items() if name != "checkpoint"}, expected)
    return None if others else folder
