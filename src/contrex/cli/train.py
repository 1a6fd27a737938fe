"""The commands that train: `quickstart` and `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import tyro

from contrex import settings
from contrex.cli.inspect import recipes
from contrex.cli.options import Arguments, console, named_data, parsed, print_summary
from contrex.errors import ArgumentError, DataError
from contrex.importing import uncollected
from contrex.settings import run_name


@dataclass(frozen=True)
class Quickstart:
    """Train cross-entropy, CGC and CGC without negatives on the built-in digits, measure them, write a report."""

    folder: Path = Path("runs/quickstart")
    """The folder for runs and report; what is there is continued."""
    seeds: int = 1
    """Runs of each method, each with another seed."""
    shortcut: float = 0.0
    """Share of the training images whose background texture gives the class away. Two splits are then reported:
    validation, where it does so as often, and test, where it never does."""
    epochs: int | None = None
    """Epochs of each run; None is the recipes' number."""
    workers: int | None = None
    """Loader processes; None is the recipes' number."""
    jobs: int | None = None
    """Processes that share the runs; None is as many as keep a CPU busy, with one thread or more each, and one where
    there is a GPU."""


def quickstart(arguments: Arguments) -> int:
    """Train three methods on built-in data, measure them, and write a report."""
    options = parsed(Quickstart, "quickstart", arguments)
    with uncollected():
        from contrex.experiment import run_experiment
        from contrex.recipes.digits import comparison
        from contrex.training.jobs import jobs_for_small_runs

    runs = comparison(seeds=options.seeds, shortcut=options.shortcut, epochs=options.epochs)
    if options.workers is not None:
        runs = [
            replace(
                run,
                training=replace(run.training, workers=options.workers),
                evaluation=replace(run.evaluation, workers=options.workers),
            )
            for run in runs
        ]
    jobs = min(len(runs), jobs_for_small_runs()) if options.jobs is None else options.jobs
    reports = run_experiment(
        runs,
        options.folder,
        splits=("test", "val") if options.shortcut else ("test",),
        console=console(),
        title="Digits with a planted shortcut" if options.shortcut else "Digits, explained consistently",
        jobs=jobs,
    )
    for one in reports:
        print_summary(one.runs, f"{one.split} split")
        print(f"report: {one.report}")
    return 0


@dataclass(frozen=True)
class Train:
    """Run a recipe; every field of it can be overridden."""

    recipe: Annotated[settings.Recipe, tyro.conf.arg(name="")]
    folder: Path | None = None
    """The folder of the run; None is runs/NAME-seedSEED. With several runs, the folder that holds them and their
    report; None is then runs/NAME, the names joined by "+"."""
    seeds: int = 1
    """Runs of each recipe, with seeds from training.seed on; the report has means and standard deviations."""
    jobs: int = 1
    """Processes on this machine that share several runs; with several GPUs, each process has its own."""
    resume: bool = False
    """Continue the run in the folder, from the step after its last checkpoint. The run must be there."""
    evaluate: bool = True
    """Evaluate the trained classifier on `evaluation.split`."""


def train(arguments: Arguments) -> int:
    """Train a recipe, by name or from a saved recipe.json, and evaluate it; several are put side by side."""
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    if not names:
        print("usage: contrex train RECIPE ... [--FIELD VALUE ...]   (contrex train RECIPE --help lists the fields)\n")
        recipes(())
        if arguments and arguments[0] in ("-h", "--help"):
            return 0
        raise ArgumentError("name a recipe, or the recipe.json of an earlier run, before the options.")
    from contrex.recipes import recipe_from

    data, rest = named_data(arguments[len(names) :])
    chosen = [_with_network(recipe_from(name), rest) for name in names]
    chosen = [recipe if data is None else replace(recipe, data=data) for recipe in chosen]
    asked = [
        parsed(Train, f"train {name}", rest, default=Train(recipe), reads_data=True)
        for name, recipe in zip(names, chosen, strict=True)
    ]
    if asked[0].seeds < 1:
        raise ArgumentError(f"--seeds {asked[0].seeds} must be at least 1.")
    if len(asked) == asked[0].seeds == 1:
        if asked[0].jobs != 1:
            raise ArgumentError(
                f"--jobs {asked[0].jobs} shares several runs, and this is one: add --seeds, or leave it out."
            )
        return _train_one(asked[0])
    return _train_several(asked)


def _with_network(recipe: settings.Recipe, words: Sequence[str]) -> settings.Recipe:
    """The recipe for the network that is named on the command line: of another than its own it has neither the options
    nor, where it begins with weights, their mean and std."""
    named = [word for place, word in enumerate(words) if place and words[place - 1] in ("--model", "--model.name")]
    named += [word.partition("=")[2] for word in words if word.startswith(("--model=", "--model.name="))]
    if not named or named[-1] == recipe.model.name:
        return recipe
    own = recipe.model if recipe.model.is_untrained else replace(recipe.model, mean=None, std=None)
    return replace(recipe, model=replace(own, name=named[-1], options={}))


def _train_one(options: Train) -> int:
    recipe = options.recipe
    folder = options.folder or Path("runs") / run_name(recipe)
    if options.resume and not (folder / "recipe.json").is_file():
        raise ArgumentError(f"--resume finds no run in {folder}: name its --folder, or start one without --resume.")
    with uncollected():
        from contrex import training
        from contrex.experiment import evaluate_run_by_each

    if options.evaluate:
        _check_evaluation(recipe)
    training.train(recipe, folder, resume=options.resume, console=console())
    print(f"trained: {folder}")
    if options.evaluate:
        measured = evaluate_run_by_each(folder, recipe.evaluation, console=console(), data=recipe.data)
        print_summary([run for run, _ in measured], f"{recipe.evaluation.split} split")
        for _, output in measured:
            print(f"record: {output}")
    return 0


def _train_several(asked: Sequence[Train]) -> int:
    """Train every recipe with every seed, and write one report; the first recipe is the baseline."""
    first = asked[0]
    if not first.evaluate:
        raise ArgumentError("--no-evaluate leaves several runs without a report: train them one by one.")
    names = [options.recipe.name for options in asked]
    if len(set(names)) < len(names):
        raise ArgumentError(f"the recipes {', '.join(names)} must have different names: give each once.")
    repeated = [
        replace(recipe, training=replace(recipe.training, seed=recipe.training.seed + number))
        for recipe in (options.recipe for options in asked)
        for number in range(first.seeds)
    ]
    folder = first.folder or Path("runs") / "+".join(names)
    with uncollected():
        from contrex.experiment import run_experiment
        from contrex.training.lock import is_locked

    runs = [folder / run_name(recipe) for recipe in repeated]
    begun = [run.name for run in runs if (run / "recipe.json").is_file()]
    if begun and not first.resume and not any(map(is_locked, runs)):  # otherwise the same command is at work there
        raise ArgumentError(f"{folder} already holds {begun[0]}: continue with --resume, or choose another --folder.")
    splits = {options.recipe.evaluation.split: options.recipe.name for options in asked}
    if len(splits) > 1:
        told = ", ".join(f"{split} ({name})" for split, name in splits.items())
        raise ArgumentError(f"`evaluation.split` is another for each: {told}. Give one for all, --evaluation.split.")
    for options in asked:
        _check_evaluation(options.recipe)
    (report,) = run_experiment(
        repeated,
        folder,
        splits=(repeated[0].evaluation.split,),
        console=console(),
        title=" · ".join(names),
        jobs=first.jobs,
    )
    print_summary(report.runs, f"{report.split} split")
    print(f"report: {report.report}")
    return 0


def _check_evaluation(recipe: settings.Recipe) -> None:
    """Check the evaluation, to fail now rather than after hours of training."""
    from contrex.data.labelled import run_images
    from contrex.devices import device_named
    from contrex.evaluation import check_names
    from contrex.explain.named import build_explainer
    from contrex.models import load_classifier
    from contrex.training.trained import without_file

    check_names(recipe.evaluation)
    device_named(recipe.evaluation.device)
    images = run_images(recipe, recipe.evaluation.split)
    if not images.has_labels:
        raise DataError(
            f"`evaluation.split`: {images.name} has no labels, and an evaluation needs them. Add --no-evaluate, and "
            "then contrex evaluate RUN --data PATH with images that have some."
        )
    check_names(recipe.evaluation, len(images.classes))
    bare = load_classifier(without_file(recipe.model), num_classes=len(images.classes), is_bare=True)
    for way in recipe.evaluation.of_each_explainer():
        build_explainer(bare.network, way.explainer, way.layer)
    if len(images) == 0:
        raise DataError(f"`evaluation.split`: {images.name} has no images. Choose another, or add --no-evaluate.")
