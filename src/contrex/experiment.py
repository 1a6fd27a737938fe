"""Several recipes, one report: train each, evaluate each, put them side by side.

FOLDER/
    digits_cgc-seed0/        a run folder per recipe and seed (`contrex.training.loop`)
        evaluation-test/     a record per evaluated split (`contrex.records`)
    report.html              the first split's report; report-SPLIT.html for further ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from contrex.data import image_set
from contrex.evaluation import Subject, check_names, evaluate
from contrex.models import load_classifier
from contrex.records import RunRecord, read_run, to_plain, write_run
from contrex.report import write_report
from contrex.settings import Evaluation, Folder, Model, Recipe
from contrex.training import curves, load_trained, train


@dataclass(frozen=True)
class SplitReport:
    """What an experiment found on one split: the runs in the order of the recipes, and the page that shows them."""

    split: str
    runs: Sequence[RunRecord]
    report: Path


def run_experiment(
    recipes: Sequence[Recipe], folder: Path, *, splits: Sequence[str], console: Console, title: str
) -> list[SplitReport]:
    """Train and evaluate every recipe, continuing what is there, and write a report per split.

    The first recipe is the baseline that the others are compared with.
    """
    for recipe in recipes:
        check_names(recipe.evaluation)
    runs = [folder / f"{recipe.name}-seed{recipe.training.seed}" for recipe in recipes]
    for recipe, run in zip(recipes, runs, strict=True):
        train(recipe, run, resume=True, console=console)
        for split in splits:
            if not (run / f"evaluation-{split}" / "record.json").is_file():
                evaluate_run(run, replace(recipe.evaluation, split=split), console=console)
    reports = []
    for split in splits:
        output = folder / ("report.html" if split == splits[0] else f"report-{split}.html")
        records = [run / f"evaluation-{split}" for run in runs]
        reports.append(SplitReport(split, [read_run(r) for r in records], write_report(records, output, title=title)))
    return reports


def evaluate_run(
    run: Path, options: Evaluation, *, console: Console, output: Path | None = None, which: str = "last"
) -> tuple[RunRecord, Path]:
    """Evaluate a trained run; the record goes to `output`, by default `RUN/evaluation-SPLIT`."""
    recipe, classifier, _ = load_trained(run, which=which)
    subject = Subject(
        name=f"{recipe.name}-seed{recipe.training.seed}",
        classifier=classifier,
        images=image_set(recipe.data, options.split),
        data=recipe.data,
        augmentation=recipe.augmentation,
        configuration=to_plain(recipe),
        curves=curves(run),
        seed=recipe.training.seed,
    )
    return _evaluate(subject, options, output or run / f"evaluation-{options.split}", console)


def evaluate_model(
    model: Model, data: Folder, options: Evaluation, output: Path, *, console: Console, name: str | None = None
) -> tuple[RunRecord, Path]:
    """Evaluate a classifier from a weights file on image folders."""
    subject = Subject(
        name=name or model.name,
        classifier=load_classifier(model),
        images=image_set(data, options.split),
        data=data,
        configuration={"model": to_plain(model), "data": to_plain(data)},
    )
    return _evaluate(subject, options, output, console)


def _evaluate(subject: Subject, options: Evaluation, output: Path, console: Console) -> tuple[RunRecord, Path]:
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating {subject.name}", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        run = evaluate(subject, options, progress=advance)
    write_run(output, run)
    return run, output
