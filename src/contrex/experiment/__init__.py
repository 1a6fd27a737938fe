"""Experiments: train several recipes, evaluate each, and put them side by side in one report.

FOLDER/
    digits_cgc-seed0/        a run folder per recipe and seed (`contrex.training.loop`)
        evaluation-test/     a record per evaluated split (`contrex.records`)
        evaluation-test-contrast=weighted/    and one per other way of measuring, named by what differs
    report.html              the first split's report; report-SPLIT.html for further ones

A record is only replaced by one with the same settings: measuring a run in another way never changes what is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from contrex import ranks
from contrex.evaluation import check_names
from contrex.experiment.measuring import (
    evaluate_model,
    evaluate_model_by_each,
    evaluate_run,
    evaluate_run_by_each,
)
from contrex.experiment.sharing import Task, carry_out
from contrex.records import RunRecord, read_run
from contrex.report import write_report
from contrex.settings import Recipe

__all__ = [
    "SplitReport",
    "Task",
    "carry_out",
    "evaluate_model",
    "evaluate_model_by_each",
    "evaluate_run",
    "evaluate_run_by_each",
    "run_experiment",
]


@dataclass(frozen=True)
class SplitReport:
    """The records of one split, in the order of the recipes and their explainers, and the page that shows them."""

    split: str
    runs: Sequence[RunRecord]
    report: Path


def run_experiment(
    recipes: Sequence[Recipe], folder: Path, *, splits: Sequence[str], console: Console, title: str, jobs: int = 1
) -> list[SplitReport]:
    """Train and evaluate every recipe, and write a report for each split. Work that is already done is kept.

    The first recipe is the baseline that the others are compared with. A record in the folder is used again only if it
    measured the same weights in the same way.

    Several processes may share the runs, and `jobs` starts some here: see `carry_out`, also for the errors.
    """
    for recipe in recipes:
        check_names(recipe.evaluation)
    tasks = [Task(recipe, [(replace(recipe.evaluation, split=split), None) for split in splits]) for recipe in recipes]
    records = carry_out(tasks, folder, console=console, jobs=jobs)
    reports = []
    for number, split in enumerate(splits):
        folders = [record for of_run in records for record in _of_split(of_run, number, len(splits))]
        output = folder / ("report.html" if number == 0 else f"report-{split}.html")
        with ranks.together():
            if ranks.rank() == 0:
                write_report(folders, output, title=title)
        reports.append(SplitReport(split, [read_run(record) for record in folders], output))
    return reports


def _of_split(records: Sequence[Path], number: int, num_splits: int) -> Sequence[Path]:
    """The records of one split, among a run's: one split after the other, with equally many records each."""
    num = len(records) // num_splits
    return records[number * num : (number + 1) * num]
