"""Measuring one trained run, or one weights file, and writing its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from contrex import ranks
from contrex.data import image_set, reader
from contrex.data.labelled import LIST, draw_of, run_images
from contrex.data.sample import ImageSet
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import Subject, configuration_of, evaluate_each
from contrex.experiment.folders import as_word, listed, record_folder, record_name, recorded_configuration
from contrex.experiment.others import other_networks
from contrex.models import Classifier, load_classifier
from contrex.models.classes import check_order
from contrex.records import RunRecord, to_plain, write_run
from contrex.records.scopes import differing
from contrex.settings import Data, Evaluation, Model, Recipe, run_name
from contrex.training import curves, sheets
from contrex.training.checkpoint import Checkpoints
from contrex.training.progress import progress_bar
from contrex.training.trained import trained


def evaluate_run(
    run: Path,
    options: Evaluation,
    *,
    console: Console,
    output: Path | None = None,
    data: Data | None = None,
) -> tuple[RunRecord, Path]:
    """Evaluate a trained run with one explainer; return the record and its folder.

    The images are those of `data`, by default the recipe's. The record goes to `output`, by default to
    RUN/evaluation-SPLIT followed by what differs from the recipe's own evaluation, as in
    `evaluation-test-contrast=weighted`.

    Raises:
        RecordError: `output` holds a record of other settings.
        DataError: the data have other classes than the run.
        ArgumentError: the options name several explainers.
    """
    _check_one(options, "evaluate_run_by_each")
    return evaluate_run_by_each(run, options, console=console, output=output, data=data)[0]


def evaluate_run_by_each(
    run: Path, options: Evaluation, *, console: Console, output: Path | None = None, data: Data | None = None
) -> list[tuple[RunRecord, Path]]:
    """Evaluate a trained run with each of `options.explainers`; return each record and its folder.

    The images are read once. The default folders are those of `evaluate_run`; several records with an `output` go to
    OUTPUT/EXPLAINER. Errors are as in `evaluate_run`.
    """
    subject, defaults = _trained_subject(run, options, data)
    return _evaluate(subject, options, _places(subject, options, defaults, output), console)


def evaluate_model(
    model: Model,
    data: Data,
    options: Evaluation,
    output: Path | None = None,
    *,
    console: Console,
    name: str | None = None,
) -> tuple[RunRecord, Path]:
    """Evaluate a classifier from a weights file with one explainer; return the record and its folder.

    The record goes to `output`, by default to runs/evaluation-NAME. NAME is `name`, or else the model's.

    Raises:
        RecordError: `output` holds a record of other settings, or of other weights.
        DataError: the images have the network's classes in another order.
        ArgumentError: the options name a checkpoint, which only runs have, or several explainers.
    """
    _check_one(options, "evaluate_model_by_each")
    return evaluate_model_by_each(model, data, options, output, console=console, name=name)[0]


def evaluate_model_by_each(
    model: Model,
    data: Data,
    options: Evaluation,
    output: Path | None = None,
    *,
    console: Console,
    name: str | None = None,
    classifier: Classifier | None = None,
    default: Path | None = None,
) -> list[tuple[RunRecord, Path]]:
    """Evaluate a classifier from a weights file, or with its library's own weights, with each of `options.explainers`;
    return each record and its folder. `classifier` is what `load_classifier(model)` gives, where it was called before.

    The images are read once. One record goes where `evaluate_model` puts it, or without `output` to `default`; several
    go to runs/evaluation-NAME-explainer=EXPLAINER, or to OUTPUT/EXPLAINER. Errors are as in `evaluate_model`.
    """
    if options.checkpoint != "last":
        raise ArgumentError(
            f"`evaluation.checkpoint` {options.checkpoint} is for runs; a weights file has only one: leave it out."
        )
    classifier = classifier or load_classifier(model)
    plain = (
        {**to_plain(model), "mean": list(classifier.mean), "std": list(classifier.std)} if model.pretrained else model
    )
    images = image_set(data, options.split)
    check_order(classifier.names or (), images.classes, images.name)
    subject = Subject(
        name=name or model.name,
        classifier=classifier,
        images=images,
        data=data,
        configuration={"model": to_plain(plain), "data": to_plain(data)},
        others=other_networks(options.others, images.classes),
    )
    default = default or Path("runs") / f"evaluation-{as_word(subject.name)}"
    named = [default.with_name(f"{default.name}-explainer={as_word(text)}") for text in options.explainers]
    return _evaluate(subject, options, _places(subject, options, named or [default], output), console)


def _check_one(options: Evaluation, instead: str) -> None:
    if len(options.of_each_explainer()) > 1:
        raise ArgumentError(
            f"`evaluation.explainers` names {len(options.explainers)} explainers, and this gives one record: call "
            f"{instead}, which gives one for each."
        )


def _places(subject: Subject, options: Evaluation, defaults: Sequence[Path], output: Path | None) -> list[Path]:
    """The folder of each explainer's record, below `output` or by default; no two are the same."""
    ways, folders = options.of_each_explainer(), list[Path]()
    for way, default in zip(ways, defaults, strict=True):
        own = output if output is None or len(ways) == 1 else output / as_word(way.explainer)
        folders.append(record_folder(own, default, configuration_of(subject, way), taken=folders))
    return folders


def _evaluate(
    subject: Subject, options: Evaluation, outputs: Sequence[Path], console: Console
) -> list[tuple[RunRecord, Path]]:
    """Measure with each explainer, and write each record to its folder."""
    with progress_bar(f"evaluating {subject.name}", console=console) as bar:
        began = time.monotonic()
        runs = evaluate_each(subject, options, progress=bar.at)
        taken = time.monotonic() - began
    for way, run in zip(options.of_each_explainer(), runs, strict=True):
        for place in _explained_places(run):
            told = f"{way.explainer} explains" if len(runs) > 1 else "explains"
            console.print(f"{told} {place}", highlight=False, markup=False)
    num = runs[0].record.dataset["num_images"]
    console.print(f"{num} images in {taken:.1f} s, {num / taken:.1f} per second", highlight=False)
    with ranks.together():
        if ranks.rank() == 0:
            for run, output in zip(runs, outputs, strict=True):
                write_run(output, run)
    return list(zip(runs, outputs, strict=True))


def _explained_places(run: RunRecord) -> list[str]:
    """The explained layers with their grids, each once; metrics may differ in them."""
    details = [metric.protocol for metric in run.record.metrics if "grid" in metric.protocol]
    return list(dict.fromkeys(f"{one['layer']}, {one['grid']}" for one in details))


def measure_run_by_each(run: Path, options: Evaluation, *, console: Console, data: Data | None = None) -> list[Path]:
    """Evaluate a run by each explainer that has no record of these weights yet; return the folders of all records."""
    subject, defaults = _trained_subject(run, options, data)
    folders, ways = _places(subject, options, defaults, None), options.of_each_explainer()
    missing = []
    for way, folder in zip(ways, folders, strict=True):
        recorded = recorded_configuration(folder)
        if recorded is None or differing(recorded, configuration_of(subject, way)):
            missing.append((way.explainer, folder))
    if missing:
        asked = replace(options, explainers=tuple(text for text, _ in missing))
        _evaluate(subject, asked, [folder for _, folder in missing], console)
    return folders


def _trained_subject(run: Path, options: Evaluation, data: Data | None) -> tuple[Subject, list[Path]]:
    """The subject of a run's evaluation, and the default folder of each explainer's record."""
    content, file = Checkpoints(run).load_file(options.checkpoint)
    recipe, classifier, classes = trained(content)
    used = recipe.data if data is None else data
    images = _images(run, recipe, options.split, content.get("labelled_sha256"), used)
    if reader(type(recipe.data)).has_labels:
        _check_classes(run, images, classes)
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
            "file": file,
            **({"labelled_sha256": sha256} if (sha256 := content.get("labelled_sha256")) else {}),
        },
        curves=curves(run),
        sheets=sheets(run),
        seed=recipe.training.seed,
        others=other_networks(options.others, classes),
    )
    return subject, [run / record_name(recipe, way, used) for way in options.of_each_explainer()]


def _check_classes(run: Path, images: ImageSet, classes: Sequence[str]) -> None:
    """Refuse images of other classes than a run was trained on; one that was trained without labels knows no names, and
    an evaluation compares the number."""
    if list(images.classes) != list(classes):
        raise DataError(
            f"{images.name} does not have the classes that {run} was trained on: {listed(images.classes)} instead of "
            f"{listed(classes)}. Choose and order them with `data.classes`, or give the folder a labels.csv with the "
            "run's class indices and a classes.txt with its names."
        )


def _images(run: Path, recipe: Recipe, split: str, labelled_sha256: str | None, data: Data) -> ImageSet:
    """The images of a split. Of the run's own data, wherever they lie now, they are those of the run's own draw."""
    own, asked = ({"data": to_plain(one)} for one in (recipe.data, data))
    if differing(own, asked, ignoring={"place"}):
        return image_set(data, split)
    images = run_images(replace(recipe, data=data), split)
    draw = draw_of(images)
    if draw is not None and draw.sha256 != labelled_sha256:
        raise DataError(
            f"{images.name} is not what {run} was trained on: its {LIST} has other images. Use the same images and "
            "`labelled.file`, or another `evaluation.split`."
        )
    return images
