"""The commands that measure runs and put them side by side: `evaluate`, `report` and `compare`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from contrex import settings
from contrex.cli.options import Arguments, Evaluation, console, named_data, parsed, print_summary
from contrex.errors import ArgumentError
from contrex.importing import uncollected

if TYPE_CHECKING:
    from contrex.models import Classifier
    from contrex.records import RunRecord


@dataclass(frozen=True)
class EvaluateModel:
    """Evaluate a classifier, with --pretrained or a weights file, on a data set (of a run: contrex evaluate RUN)."""

    model: settings.Model
    data: settings.Data
    evaluation: Evaluation = field(default_factory=settings.Evaluation)
    output: Path | None = None
    """The folder of the record; None is runs/evaluation-NAME. With --explainers, the folder that holds one for each."""
    name: str | None = None
    """The name in reports; None is the model's name."""


@dataclass(frozen=True)
class EvaluateRun:
    """Evaluate a trained run."""

    evaluation: Evaluation
    data: settings.Data
    output: Path | None = None
    """The folder of the record; None is RUN/evaluation-SPLIT, with what differs from the run's own settings. With
    --explainers, the folder that holds one for each."""


def evaluate(arguments: Arguments) -> int:
    """Measure a trained run, or any classifier with a weights file, on a data set."""
    if arguments and not arguments[0].startswith("-"):
        measured = _evaluate_run(Path(arguments[0]), arguments[1:])
    else:
        data, rest = named_data(arguments)
        default = EvaluateModel(settings.Model(), data or settings.Folder(tyro.MISSING))
        options = parsed(EvaluateModel, "evaluate", rest, default=default, reads_data=True)
        if options.model.is_untrained:
            raise ArgumentError(
                "`model.weights` is needed: an untrained network measures nothing. Or name a run, or pass --pretrained."
            )
        with uncollected():
            from contrex.experiment import evaluate_model_by_each
            from contrex.models import load_classifier

        classifier = load_classifier(options.model)
        if options.model.pretrained:  # what is typed wins over the sizes that the weights were made for
            sized = replace(default, data=as_seen_by(classifier, default.data))
            options = parsed(EvaluateModel, "evaluate", rest, default=sized, reads_data=True)
        measured = evaluate_model_by_each(
            options.model,
            options.data,
            options.evaluation,
            options.output,
            console=console(),
            name=options.name,
            classifier=classifier,
        )
    dataset = measured[0][0].record.dataset
    print_summary([run for run, _ in measured], f"{dataset['split']} split of {dataset['name']}")
    for _, output in measured:
        print(f"record: {output}")
    return 0


def as_seen_by(classifier: Classifier, data: settings.Data) -> settings.Data:
    """The settings of photos with the sizes that a classifier was made for, where it says them."""
    if classifier.image_size is None or not hasattr(data, "resize"):
        return data
    size = classifier.image_size
    return replace(data, image_size=size, resize=classifier.short_side or size)  # type: ignore[call-arg]


def _evaluate_run(folder: Path, arguments: Arguments) -> list[tuple[RunRecord, Path]]:
    with uncollected():
        from contrex.training import saved_recipe

    recipe = saved_recipe(folder)
    data, rest = named_data(arguments)
    default = EvaluateRun(recipe.evaluation, data or recipe.data)
    options = parsed(EvaluateRun, f"evaluate {folder}", rest, default=default, reads_data=True)
    from contrex.experiment import evaluate_run_by_each

    return evaluate_run_by_each(
        folder,
        options.evaluation,
        console=console(),
        output=options.output,
        data=options.data,
    )


@dataclass(frozen=True)
class Report:
    """Put evaluated runs side by side in one self-contained HTML page; the first is the baseline."""

    records: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with a record.json, as `contrex evaluate` and `contrex train` write them."""
    output: Path = Path("report.html")
    title: str | None = None
    names: tuple[str, ...] = ()
    """What the report calls the methods, in their order: --names baseline CGC. Without, a run that is named after its
    recipe has the name of its method, and any other its own."""


def report(arguments: Arguments) -> int:
    """Put evaluated runs side by side in one HTML page."""
    options = parsed(Report, "report", arguments)
    from contrex.records import read_run
    from contrex.report import write_report

    output = write_report(options.records, options.output, title=options.title, names=options.names)
    print_summary([read_run(folder) for folder in options.records], "", options.names)
    print(f"report: {output}")
    return 0


@dataclass(frozen=True)
class Compare:
    """Compare evaluated runs in numbers; the first is the baseline, and runs of several seeds are averaged."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders with one evaluation, or folders with a record.json."""
    output: Path | None = None
    """Also write the HTML report to this file."""
    csv: Path | None = None
    """Also write the numbers, unrounded, to this file."""
    names: tuple[str, ...] = ()
    """What the methods are called, in their order, as in `contrex report`."""


def compare(arguments: Arguments) -> int:
    """Compare evaluated runs in numbers: differences, their intervals and sign tests."""
    options = parsed(Compare, "compare", arguments)
    if len(options.runs) < 2:
        raise ArgumentError("name two runs or more, the baseline first: contrex compare RUN RUN ...")
    from rich.console import Console

    from contrex.records import read_run, write_atomically
    from contrex.report import comparison_csv, comparison_tables, record_folder, write_report

    folders = [record_folder(path) for path in options.runs]
    runs = [read_run(folder) for folder in folders]
    for table in comparison_tables(runs, options.names):
        Console().print(table)
    if options.output is not None:
        print(f"report: {write_report(folders, options.output, names=options.names)}")
    if options.csv is not None:
        write_atomically(options.csv, comparison_csv(runs, options.names).encode())
        print(f"numbers: {options.csv}")
    return 0
