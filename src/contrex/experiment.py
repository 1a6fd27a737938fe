"""Several recipes, one report: train each, evaluate each, put them side by side.

FOLDER/
    digits_cgc-seed0/        a run folder per recipe and seed (`contrex.training.loop`)
        evaluation-test/     a record per evaluated split (`contrex.records`)
        evaluation-test-contrast=weighted/    and one per other way of measuring it, named by what differs
    report.html              the first split's report; report-SPLIT.html for further ones

A record is replaced by one of the same settings only: looking at a run in another way never changes what it recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from contrex import ranks
from contrex.data import image_set
from contrex.data.labelled import LIST, draw_of, run_images
from contrex.data.sample import ImageSet
from contrex.errors import ArgumentError, BusyRunError, DataError, RecordError, printable
from contrex.evaluation import Subject, check_names, configuration_of, evaluate
from contrex.models import load_classifier
from contrex.records import RunRecord, read_run, to_plain, write_run
from contrex.report import write_report
from contrex.settings import Data, Evaluation, Model, Recipe, run_name
from contrex.training import curves, sheets, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.jobs import spread
from contrex.training.lock import locked
from contrex.training.trained import trained

MACHINE = frozenset({"device", "workers", "checkpoint_minutes"})
"""Settings that do not make a record another one."""

POLL = 1.0
"""Seconds between two looks at the runs that other processes work on."""

PROGRESS = frozenset({"checkpoint.step", "checkpoint.epochs_done", "checkpoint.sha256", "checkpoint.file"})
"""How far a run has come: its last checkpoint, measured again later, replaces its record."""

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class SplitReport:
    """What an experiment found on one split: the runs in the order of the recipes, and the page that shows them."""

    split: str
    runs: Sequence[RunRecord]
    report: Path


def run_experiment(
    recipes: Sequence[Recipe], folder: Path, *, splits: Sequence[str], console: Console, title: str, jobs: int = 1
) -> list[SplitReport]:
    """Train and evaluate every recipe, continuing what is there, and write a report per split.

    The first recipe is the baseline that the others are compared with. A record that is there already is used again
    only if it measured these very weights in this very way.

    Several processes may share the runs, `jobs` of them started here; see `carried_out`, which raises what is raised.
    """
    for recipe in recipes:
        check_names(recipe.evaluation)
    tasks = [Task(recipe, [(replace(recipe.evaluation, split=split), None) for split in splits]) for recipe in recipes]
    records = carried_out(tasks, folder, console=console, jobs=jobs)
    reports = []
    for number, split in enumerate(splits):
        found = [of_run[number] for of_run in records]
        output = folder / ("report.html" if number == 0 else f"report-{split}.html")
        with ranks.together():
            if ranks.rank() == 0:
                write_report(found, output, title=title)
        reports.append(SplitReport(split, [read_run(record) for record in found], output))
    return reports


# --- runs that processes share --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A run, and how it is measured: in which ways, and on which data where they are not its own."""

    recipe: Recipe
    ways: Sequence[tuple[Evaluation, Data | None]]


def carried_out(tasks: Sequence[Task], folder: Path, *, console: Console, jobs: int = 1) -> list[list[Path]]:
    """Train and measure what has not been yet, and return the folders of the records: of each task, one for each way.

    The tasks are shared with whatever other process is given the same ones and the same folder, on this machine or on
    another that has the folder too: each takes the next run that is neither done nor being worked on, and all wait for
    the last one. `jobs` starts so many processes here.

    Raises:
        ArgumentError: no jobs, or several of a run of several processes.
        ProcessError: one of the jobs failed; the message is its own.
    """
    if jobs < 1:
        raise ArgumentError(f"`jobs` must be at least 1, got {jobs}.")
    if jobs > 1:
        if ranks.world_size() > 1:
            raise ArgumentError(f"`jobs` {jobs} is for single processes, torchrun started {ranks.world_size()}: 1.")
        spread(partial(_all_done, tasks, folder), min(jobs, len(tasks)), console=console)
    return _all_done(tasks, folder, console)


def _all_done(tasks: Sequence[Task], folder: Path, console: Console) -> list[list[Path]]:
    """The folders of the records, once all runs are trained and measured, by whichever process."""
    found: dict[int, list[Path]] = {}
    is_told = False
    while len(found) < len(tasks):
        before = len(found)
        for number, task in enumerate(tasks):
            place = f"{run_name(task.recipe)}, run {number + 1} of {len(tasks)}"
            if number not in found and (records := _own_or_done(task, folder, console, place)) is not None:
                found[number] = records
        if len(found) == before:
            if not is_told:
                console.print(f"waiting for {len(tasks) - before} runs that other processes work on", highlight=False)
            is_told = True
            time.sleep(POLL)
    return [found[number] for number in range(len(tasks))]


def _own_or_done(task: Task, folder: Path, console: Console, place: str) -> list[Path] | None:
    """The folders of a run's records, made now where they are missing; None where another process works on the run."""
    recipe, run = task.recipe, folder / run_name(task.recipe)
    done = ranks.from_first(lambda: [_finished(run, recipe, *way) for way in task.ways])
    if None not in done:
        return [record for record in done if record is not None]
    try:
        with locked(run):
            console.print(printable(place), highlight=False, markup=False)
            train(recipe, run, resume=True, console=console)
            return [measured_run(run, options, console=console, data=data) for options, data in task.ways]
    except BusyRunError:
        return None


def _finished(run: Path, recipe: Recipe, options: Evaluation, data: Data | None = None) -> Path | None:
    """The folder of the record of a run that has come to its end and was measured so, as far as can be told without
    reading weights or images; None where it is not known."""
    file = Checkpoints(run).finished(options.checkpoint)
    used = recipe.data if data is None else data
    folder = run / _record_name(recipe, options, used)
    recorded = None if file is None else _recorded(folder)
    if not recorded or recorded.get("checkpoint", {}).get("file") != file:
        return None
    expected = {**to_plain(replace(recipe, data=used)), "evaluation": to_plain(options)}
    others = _different({name: value for name, value in recorded.items() if name != "checkpoint"}, expected)
    return None if any(others) else folder


# --- one run --------------------------------------------------------------------------------------------------------


def evaluate_run(
    run: Path,
    options: Evaluation,
    *,
    console: Console,
    output: Path | None = None,
    data: Data | None = None,
) -> tuple[RunRecord, Path]:
    """Evaluate a trained run, on `data` instead of its recipe's where that is given, and return record and folder.

    The record goes to `output`, by default to RUN/evaluation-SPLIT; the default names what differs from the recipe's
    own evaluation, as in `evaluation-test-contrast=weighted`.

    Raises:
        RecordError: `output` holds a record of other settings.
        DataError: the data have other classes than the run.
    """
    subject, default = _trained_subject(run, options, data)
    return _evaluate(subject, options, _record_folder(output, default, configuration_of(subject, options)), console)


def evaluate_model(
    model: Model,
    data: Data,
    options: Evaluation,
    output: Path | None = None,
    *,
    console: Console,
    name: str | None = None,
) -> tuple[RunRecord, Path]:
    """Evaluate a classifier from a weights file on a data set, and return record and folder.

    The record goes to `output`, by default to runs/evaluation-NAME; NAME is the model's without `name`.

    Raises:
        RecordError: `output` holds a record of other settings, or of other weights.
        ArgumentError: a checkpoint is asked for, which only runs have.
    """
    if options.checkpoint != "last":
        raise ArgumentError(f"`evaluation.checkpoint` {options.checkpoint} is a run's: a weights file has only one.")
    subject = Subject(
        name=name or model.name,
        classifier=load_classifier(model),
        images=image_set(data, options.split),
        data=data,
        configuration={"model": to_plain(model), "data": to_plain(data)},
    )
    default = Path("runs") / f"evaluation-{_word(subject.name)}"
    return _evaluate(subject, options, _record_folder(output, default, configuration_of(subject, options)), console)


def _evaluate(subject: Subject, options: Evaluation, output: Path, console: Console) -> tuple[RunRecord, Path]:
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating {subject.name}", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        began = time.monotonic()
        run = evaluate(subject, options, progress=advance)
        taken = time.monotonic() - began
    for place in _explained_places(run):
        console.print(f"explains {place}", highlight=False, markup=False)
    num = run.record.dataset["num_images"]
    console.print(f"{num} images in {taken:.1f} s, {num / taken:.1f} per second", highlight=False)
    with ranks.together():
        if ranks.rank() == 0:
            write_run(output, run)
    return run, output


def _explained_places(run: RunRecord) -> list[str]:
    """The layer that was explained and its grid, as often as they differ between metrics."""
    details = [metric.protocol for metric in run.record.metrics if "grid" in metric.protocol]
    return list(dict.fromkeys(f"{one['layer']}, {one['grid']}" for one in details))


def measured_run(run: Path, options: Evaluation, *, console: Console, data: Data | None = None) -> Path:
    """The folder of the record of the run's weights, on `data` instead of its recipe's where that is given; evaluated
    unless they have been."""
    subject, default = _trained_subject(run, options, data)
    configuration = configuration_of(subject, options)
    folder = _record_folder(None, default, configuration)
    recorded = _recorded(folder)
    if recorded is None or list(_different(recorded, configuration)):
        _evaluate(subject, options, folder, console)
    return folder


def _trained_subject(run: Path, options: Evaluation, data: Data | None) -> tuple[Subject, Path]:
    """What to evaluate, and the default folder of its record."""
    checkpoints = Checkpoints(run)
    content = checkpoints.load(options.checkpoint)
    recipe, classifier, classes = trained(content)
    used = recipe.data if data is None else data
    images = _images(run, recipe, options.split, content.get("labelled_sha256"), used)
    if tuple(images.classes) != classes:
        raise DataError(
            f"{images.name} does not have the classes that {run} was trained on: {_listed(images.classes)} instead of "
            f"{_listed(classes)}. Choose and order them with `data.classes`, or give the folder a labels.csv with the "
            "run's class indices and a classes.txt with its names."
        )
    subject = Subject(
        name=run_name(recipe),
        classifier=classifier,
        images=images,
        data=used,
        augmentation=recipe.augmentation,
        configuration=to_plain(replace(recipe, data=used)),
        checkpoint={
            "name": options.checkpoint,
            "step": content["place"]["step"],
            "epochs_done": content["place"]["epoch"],
            "epochs": content["epochs"],
            "file": checkpoints.file(options.checkpoint),
            **({"labelled_sha256": sha256} if (sha256 := content.get("labelled_sha256")) else {}),
        },
        curves=curves(run),
        sheets=sheets(run),
        seed=recipe.training.seed,
    )
    return subject, run / _record_name(recipe, options, used)


def _images(run: Path, recipe: Recipe, split: str, labelled_sha256: str | None, data: Data) -> ImageSet:
    """What `split` of `data` means to a run: its own draw where they are the run's, wherever they lie now."""
    same = type(data) is type(recipe.data) and {**vars(data), "path": None} == {**vars(recipe.data), "path": None}
    if not same:
        return image_set(data, split)
    images = run_images(replace(recipe, data=data), split)
    draw = draw_of(images)
    if draw is not None and draw.sha256 != labelled_sha256:
        raise DataError(
            f"{images.name} is not what {run} was trained on: its {LIST} has other images. Use the same images and "
            "`labelled.file`, or another `evaluation.split`."
        )
    return images


# --- where a record goes --------------------------------------------------------------------------------------------


def _record_name(recipe: Recipe, options: Evaluation, data: Data) -> str:
    """`evaluation-SPLIT` and what differs from the recipe's own evaluation, at most 120 long."""
    own, asked = to_plain(replace(recipe.evaluation, split=options.split)), to_plain(options)
    parts = [f"{field}={_word(asked[field])}" for field in _different(own, asked)]
    if data != recipe.data:
        parts.append(f"data={_word(data_name(data))}")
    return "-".join([f"evaluation-{options.split}", *parts])[:120]


def data_name(data: Data) -> str:
    """What a data set is called in a folder's name: its folder's, or its kind's where it has none."""
    path: Path | None = getattr(data, "path", None)
    return type(data).__name__ if path is None else path.name


def _record_folder(output: Path | None, default: Path, configuration: Configuration) -> Path:
    """`output` or the default folder; where the default holds another record, one with a name of its own."""
    folder = default if output is None else output
    recorded = _recorded(folder)
    if recorded is None:
        return folder
    ignored = PROGRESS if "name" in configuration["checkpoint"] else frozenset()
    others = [name for name in _different(recorded, configuration) if name not in ignored]
    if not others:
        return folder
    if output is not None:
        raise RecordError(
            f"`output` {output} holds another record, which differs in {_listed(others)}: choose another folder."
        )
    settings = {name: value for name, value in _flat(configuration) if name not in ignored}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return default.with_name(f"{default.name}-{digest[:6]}")


def _recorded(folder: Path) -> Configuration | None:
    """The configuration of the record in `folder`, None without one; empty for a record that cannot be read."""
    if not (folder / "record.json").is_file():
        return None
    try:
        return read_run(folder).record.configuration
    except RecordError:
        return {}


def _different(old: Configuration, new: Configuration) -> Iterator[str]:
    """The dotted names of the settings that differ, but for those of the machine."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return (name for name in {**after, **before} if before.get(name) != after.get(name))


def _flat(plain: Configuration, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif key not in MACHINE:
            yield f"{prefix}{key}", value


def _word(value: object) -> str:
    """A value as a part of a folder's name.

    >>> _word(["top1", "top5"]), _word("timm:resnet18"), _word(None)
    ('top1+top5', 'timm-resnet18', 'None')
    """
    text = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return re.sub(r"[^\w.+=-]+", "-", text)


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
