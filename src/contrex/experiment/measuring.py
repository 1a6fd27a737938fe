"""One trained run, or one file of weights: measure it and write its record."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from contrex import ranks
from contrex.data import image_set
from contrex.data.labelled import LIST, draw_of, run_images
from contrex.data.sample import ImageSet
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import Subject, configuration_of, evaluate
from contrex.experiment.folders import as_word, different, listed, record_folder, record_name, recorded_configuration
from contrex.models import load_classifier
from contrex.records import RunRecord, to_plain, write_run
from contrex.settings import Data, Evaluation, Model, Recipe, run_name
from contrex.training import curves, sheets
from contrex.training.checkpoint import Checkpoints
from contrex.training.trained import trained


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
    return _evaluate(subject, options, record_folder(output, default, configuration_of(subject, options)), console)


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
    default = Path("runs") / f"evaluation-{as_word(subject.name)}"
    return _evaluate(subject, options, record_folder(output, default, configuration_of(subject, options)), console)


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


def measure_run(run: Path, options: Evaluation, *, console: Console, data: Data | None = None) -> Path:
    """Evaluate a run unless it has a record of these weights, on `data` where that is given, and return the record's
    folder."""
    subject, default = _trained_subject(run, options, data)
    configuration = configuration_of(subject, options)
    folder = record_folder(None, default, configuration)
    recorded = recorded_configuration(folder)
    if recorded is None or list(different(recorded, configuration)):
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
            f"{images.name} does not have the classes that {run} was trained on: {listed(images.classes)} instead of "
            f"{listed(classes)}. Choose and order them with `data.classes`, or give the folder a labels.csv with the "
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
    return subject, run / record_name(recipe, options, used)


def _images(run: Path, recipe: Recipe, split: str, labelled_sha256: str | None, data: Data) -> ImageSet:
    """The images of a split as a run has them: those of its own draw where the data are its own, wherever they lie
    now."""
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
