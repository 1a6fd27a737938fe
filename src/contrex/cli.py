"""The command line: parse, call, print. `contrex --help` lists the commands, `contrex COMMAND --help` its options.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from contrex import settings
from contrex._version import __version__
from contrex.errors import ArgumentError, ContrexError, DataError, printable, unknown_name, unwrapped
from contrex.settings import run_name

if TYPE_CHECKING:
    from rich.console import Console

    from contrex.records import RunRecord

Arguments = Sequence[str]
T = TypeVar("T")
Evaluation = Annotated[settings.Evaluation, tyro.conf.arg(name="")]
"""The evaluation's fields without its name in front: `--metrics` instead of `--evaluation.metrics`."""


def main(arguments: Arguments | None = None) -> int:
    """Run one command and return the exit code: 2 for a wrong argument, 3 for a NaN loss, 128 + n after signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"contrex {__version__}")
        return 0
    try:
        if words[0] not in COMMANDS:
            raise unknown_name("the command", words[0], COMMANDS)
        with _processes(words[0]):
            return COMMANDS[words[0]](words[1:])
    except ContrexError as error:
        print(f"contrex: {printable(unwrapped(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        told = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        print(f"contrex: {printable(told)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("contrex: stopped", file=sys.stderr)
        return 130


# --- quickstart -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quickstart:
    """Train cross-entropy, CGC and CGC without negatives on the built-in digits, measure them, write a report."""

    folder: Path = Path("runs/quickstart")
    """Where runs and report go; what is there is continued."""
    seeds: int = 1
    """Repeat everything with this many seeds."""
    shortcut: float = 0.0
    """Share of the training images whose background texture agrees with the class; then both the validation split,
    where it agrees as often, and the test split, where it does not, are reported."""
    epochs: int | None = None
    """Epochs of training; None takes the recipes'."""


def quickstart(arguments: Arguments) -> int:
    """The main job on built-in data: train three methods, measure them, write a report."""
    options = _parse(Quickstart, "quickstart", arguments)
    from contrex.experiment import run_experiment
    from contrex.recipes.digits import comparison

    reports = run_experiment(
        comparison(seeds=options.seeds, shortcut=options.shortcut, epochs=options.epochs),
        options.folder,
        splits=("test", "val") if options.shortcut else ("test",),
        console=_console(),
        title="Digits with a planted shortcut" if options.shortcut else "Digits, explained consistently",
    )
    for found in reports:
        _print_summary(found.runs, f"{found.split} split")
        print(f"report: {found.report}")
    return 0


# --- train ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Train:
    """Run a recipe; every field of it can be overridden."""

    recipe: Annotated[settings.Recipe, tyro.conf.arg(name="")]
    folder: Path | None = None
    """Where the run goes; None is runs/NAME-seedSEED. With several runs, the folder that holds them and their report;
    None is runs/NAME, the names joined by "+"."""
    seeds: int = 1
    """Repeat with this many seeds, from training.seed on; the report has means and standard deviations."""
    resume: bool = False
    """Continue the run in the folder, which must be there, from the step after its last checkpoint."""
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

    data, rest = _named_data(arguments[len(names) :])
    found = [recipe if data is None else replace(recipe, data=data) for recipe in map(recipe_from, names)]
    asked = [
        _parse(Train, f"train {name}", rest, default=Train(recipe)) for name, recipe in zip(names, found, strict=True)
    ]
    if asked[0].seeds < 1:
        raise ArgumentError(f"--seeds {asked[0].seeds} must be at least 1.")
    if len(asked) == asked[0].seeds == 1:
        return _train_one(asked[0])
    return _train_several(asked)


def _train_one(options: Train) -> int:
    recipe = options.recipe
    folder = options.folder or Path("runs") / run_name(recipe)
    if options.resume and not (folder / "recipe.json").is_file():
        raise ArgumentError(f"--resume finds no run in {folder}: name its --folder, or start one without --resume.")
    from contrex import training
    from contrex.experiment import evaluate_run

    if options.evaluate:
        _check_evaluation(recipe)
    training.train(recipe, folder, resume=options.resume, console=_console())
    print(f"trained: {folder}")
    if options.evaluate:
        run, output = evaluate_run(folder, recipe.evaluation, console=_console(), data=recipe.data)
        _print_summary([run], f"{recipe.evaluation.split} split")
        print(f"record: {output}")
    return 0


def _train_several(asked: Sequence[Train]) -> int:
    """Every recipe with every seed, one report; the first recipe is the baseline."""
    first = asked[0]
    if not first.evaluate:
        raise ArgumentError("--no-evaluate leaves several runs without a report: train them one by one.")
    names = [options.recipe.name for options in asked]
    if len(set(names)) < len(names):
        raise ArgumentError(f"the recipes {', '.join(names)} must have different names: give each once.")
    found = [
        replace(recipe, training=replace(recipe.training, seed=recipe.training.seed + number))
        for recipe in (options.recipe for options in asked)
        for number in range(first.seeds)
    ]
    folder = first.folder or Path("runs") / "+".join(names)
    begun = [run_name(recipe) for recipe in found if (folder / run_name(recipe) / "recipe.json").is_file()]
    if begun and not first.resume:
        raise ArgumentError(f"{folder} already holds {begun[0]}: continue with --resume, or choose another --folder.")
    from contrex.experiment import run_experiment

    for recipe in found:
        _check_evaluation(recipe)
    (report,) = run_experiment(
        found, folder, splits=(found[0].evaluation.split,), console=_console(), title=" · ".join(names)
    )
    _print_summary(report.runs, f"{report.split} split")
    print(f"report: {report.report}")
    return 0


def _check_evaluation(recipe: settings.Recipe) -> None:
    """Refuse an evaluation that cannot be made now rather than after hours of training."""
    from contrex.data import image_set
    from contrex.devices import device_named
    from contrex.evaluation import check_names

    check_names(recipe.evaluation)
    device_named(recipe.evaluation.device)
    images = image_set(recipe.data, recipe.evaluation.split)
    check_names(recipe.evaluation, len(images.classes))
    if len(images) == 0:
        raise DataError(f"`evaluation.split`: {images.name} has no images. Choose another, or add --no-evaluate.")


# --- evaluate -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvaluateModel:
    """Evaluate a classifier from a weights file on a data set (for a trained run: contrex evaluate RUN --help)."""

    model: settings.Model
    data: settings.Data
    evaluation: Evaluation = field(default_factory=settings.Evaluation)
    output: Path | None = None
    """Where the record goes; None is runs/evaluation-NAME."""
    name: str | None = None
    """What reports call it; None is the model's name."""


@dataclass(frozen=True)
class EvaluateRun:
    """Evaluate a trained run."""

    evaluation: Evaluation
    data: settings.Data
    output: Path | None = None
    """Where the record goes; None is RUN/evaluation-SPLIT, and what differs from the run's own settings."""


def evaluate(arguments: Arguments) -> int:
    """Measure a trained run, or any classifier with a weights file, on a data set."""
    if arguments and not arguments[0].startswith("-"):
        run, output = _evaluate_run(Path(arguments[0]), arguments[1:])
    else:
        data, rest = _named_data(arguments)
        default = EvaluateModel(settings.Model(), data or settings.Folder(tyro.MISSING))
        options = _parse(EvaluateModel, "evaluate", rest, default=default)
        if options.model.weights is None:
            raise ArgumentError("`model.weights` is needed: an untrained network measures nothing. Or name a run.")
        from contrex.experiment import evaluate_model

        run, output = evaluate_model(
            options.model, options.data, options.evaluation, options.output, console=_console(), name=options.name
        )
    _print_summary([run], f"{run.record.dataset['split']} split of {run.record.dataset['name']}")
    print(f"record: {output}")
    return 0


def _evaluate_run(folder: Path, arguments: Arguments) -> tuple[RunRecord, Path]:
    from contrex.training import saved_recipe

    recipe = saved_recipe(folder)
    data, rest = _named_data(arguments)
    default = EvaluateRun(recipe.evaluation, data or recipe.data)
    options = _parse(EvaluateRun, f"evaluate {folder}", rest, default=default)
    from contrex.experiment import evaluate_run

    return evaluate_run(
        folder,
        options.evaluation,
        console=_console(),
        output=options.output,
        data=options.data,
    )


# --- explain --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explain:
    """Draw why a photo is one class - and, with --contrast, not another."""

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    run: Path | None = None
    """A trained run to explain with, instead of --model."""
    model: settings.Model = field(default_factory=settings.Model)
    explainer: tuple[str, ...] = ("grad_cam",)
    """One row of maps for each: a name (contrex explainers lists them), FILE.py:CLASS, MODULE:CLASS or captum:CLASS."""
    layer: str | None = None
    """Layer to explain; None is the last feature map."""
    target: tuple[str, ...] = ()
    """Classes to explain, by name or index; none are the most probable ones of each photo."""
    top: int | None = None
    """How many of the most probable classes to explain; without --contrast each has its map and its weighted contrast
    side by side."""
    contrast: tuple[str, ...] = ()
    """One map for each: none, against the others (mean, max, weighted), or against one class by name or index."""
    classes: Path | None = None
    """File of class names, one a line or `index<TAB>id<TAB>names`; None takes the run's, or ImageNet's for 1000."""
    side: int | None = None
    """Shorter side of the photo as the network sees it, in pixels, nothing is cropped; None is the run's, or 224."""
    output: Path = Path("explanation.png")
    """The picture; its suffix names the format."""


def explain(arguments: Arguments) -> int:
    """Draw why a photo is what the classifier says it is, and name its most probable classes."""
    options = _parse(Explain, "explain", arguments)
    if not options.photos:
        raise ArgumentError("name one photo or more: contrex explain PHOTO ... --run RUN")
    if options.run is not None and options.model != settings.Model():
        raise ArgumentError("--run and --model.* are two classifiers: give one of them.")
    if not options.output.suffix:
        raise ArgumentError(f"`output` {options.output} needs the suffix of a format: .png, .jpg, .webp, .pdf or .svg.")
    if options.top is not None and (options.top < 1 or options.target):
        raise ArgumentError(
            f"--top {options.top} must be 1 or more, and not with --target: the classes are one or other."
        )
    from contrex import photos

    usual = ("none", "weighted") if options.top is not None else ("none",)
    asked = photos.Asked(options.explainer, options.layer, options.target, options.top or 1, options.contrast or usual)
    named = photos.classifier_of(options.run, options.model, options.classes)
    results = photos.explain_photos(options.photos, named, asked, side=options.side)
    for result in results:
        for panel in result.panels:
            empty = "" if panel.heatmap.any() else "   (the map is zero everywhere)"
            print(printable(f"{result.path}: {result.explainer}: {panel.question}{empty}"))
    for path, top in {result.path: result.top for result in results}.items():
        print(printable(path))
        for name, probability in top:
            print(f"  {probability:7.2%}  {printable(name)}")
    photos.save_picture(results, options.output)
    print(f"picture: {options.output}")
    return 0


# --- export ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """Write a trained classifier for use elsewhere, and check there that it gives the same logits."""

    run: tyro.conf.Positional[Path]
    """A run folder."""
    format: Literal["safetensors", "torchvision", "timm", "onnx"]
    """`safetensors` is the plain state_dict; torchvision and timm take theirs by name; `onnx` needs contrex[onnx]."""
    output: Path | None = None
    """The file; None is RUN/classifier-CHECKPOINT with the format's suffix. Classes and normalisation lie beside it."""
    checkpoint: Literal["last", "best"] = "last"
    """The last weights, or those of the best validation accuracy."""


def export(arguments: Arguments) -> int:
    """Write a trained classifier as safetensors, for torchvision or timm, or as ONNX, checked there."""
    options = _parse(Export, "export", arguments)
    from contrex.export import export_run

    exported = export_run(options.run, options.format, output=options.output, checkpoint=options.checkpoint)
    print(f"exported: {exported.path}\ncard: {exported.card}\nchecked: {exported.checked}")
    return 0


# --- data -----------------------------------------------------------------------------------------------------------

DATA_HELP = (
    "--data PREFIX:PATH reads another data set, and has the options --data.FIELD of its kind: "
    f"{', '.join(settings.DATA_PREFIXES)}. With --data PATH the folder's layout tells the kind."
)


def _named_data(arguments: Arguments) -> tuple[settings.Data | None, Arguments]:
    """The data set that `--data PREFIX:PATH` or `--data PATH` names, if it is there, and the other arguments."""
    names, rest, words = [], [], iter(arguments)
    for word in words:
        if word == "--data":
            names.append(next(words, "-"))
        elif word.startswith("--data="):
            names.append(word.removeprefix("--data="))
        else:
            rest.append(word)
    if not names:
        return None, arguments
    if len(names) > 1 or names[0].startswith("-"):
        raise ArgumentError("--data takes one data set, PREFIX:PATH or PATH, and is given once; its options follow it.")
    from contrex.data.named import data_named

    return data_named(names[0]), rest


@dataclass(frozen=True)
class ShowData:
    """Say what a data set holds and what is wrong with it, and draw some of its images with their boxes."""

    data: settings.Data
    split: tuple[str, ...] = ()
    """Splits to look at; none are those of train, val and test that it has."""
    output: Path | None = None
    """Where the picture goes; None is data-NAME-SPLIT.png, or data-KIND-SPLIT.png."""
    num: int = 24
    """How many images are drawn, of as many classes as there are."""
    check: int = 500
    """How many images of each split are read, spread evenly; 0 reads all."""


def data(arguments: Arguments) -> int:
    """Look at a data set before training on it: what is found, what is wrong, a contact sheet."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: contrex data PATH|PREFIX:PATH [--split SPLIT ...] [--num N] [--check N] [--data.FIELD VALUE ...]")
        print(f"prefixes: {', '.join(settings.DATA_PREFIXES)}; a plain PATH is looked at")
        if arguments and arguments[0] in ("-h", "--help"):
            return 0
        raise ArgumentError("name a data set, as PATH or PREFIX:PATH, before the options.")
    from contrex.data.named import data_named

    default = ShowData(data_named(arguments[0]))
    options = _parse(ShowData, f"data {arguments[0]}", arguments[1:], default=default)
    if options.num < 1 or options.check < 0:
        raise ArgumentError(f"--num {options.num} must be at least 1, and --check {options.check} at least 0.")
    from contrex.data_overview import overview

    found = overview(options.data, options.split, check=options.check)
    print(printable("\n".join(found.lines())))
    for output in found.save_sheets(options.output, num=options.num):
        print(f"picture: {output}")
    return 1 if found.problems else 0


# --- report, recipes, doctor ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """Put evaluated runs side by side in one self-contained HTML page; the first is the baseline."""

    records: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with a record.json, as `contrex evaluate` and `contrex train` leave them."""
    output: Path = Path("report.html")
    title: str | None = None


def report(arguments: Arguments) -> int:
    """Put evaluated runs side by side in one HTML page."""
    options = _parse(Report, "report", arguments)
    from contrex.records import read_run
    from contrex.report import write_report

    output = write_report(options.records, options.output, title=options.title)
    _print_summary([read_run(folder) for folder in options.records], "")
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


def compare(arguments: Arguments) -> int:
    """Compare evaluated runs in numbers: differences, their intervals and sign tests."""
    options = _parse(Compare, "compare", arguments)
    if len(options.runs) < 2:
        raise ArgumentError("name two runs or more, the baseline first: contrex compare RUN RUN ...")
    from rich.console import Console

    from contrex.records import read_run, write_atomically
    from contrex.report import comparison_csv, comparison_tables, record_folder, write_report

    folders = [record_folder(path) for path in options.runs]
    runs = [read_run(folder) for folder in folders]
    for table in comparison_tables(runs):
        Console().print(table)
    if options.output is not None:
        print(f"report: {write_report(folders, options.output)}")
    if options.csv is not None:
        write_atomically(options.csv, comparison_csv(runs).encode())
        print(f"numbers: {options.csv}")
    return 0


def explainers(arguments: Arguments) -> int:
    """List the explainers."""
    tyro.cli(_Nothing, prog="contrex explainers", description="List the explainers.", args=arguments)
    from contrex.explain import EXPLAINERS

    width = max(map(len, EXPLAINERS))
    for name, kind in EXPLAINERS.items():
        module = sys.modules[kind.__module__]
        print(f"  {name:{width}}  {(module.__doc__ or '').splitlines()[0]}")
    return 0


def metrics(arguments: Arguments) -> int:
    """List what `evaluation.metrics` may name."""
    tyro.cli(_Nothing, prog="contrex metrics", description="List the metrics.", args=arguments)
    from contrex.evaluation import PROTOCOLS

    width = max(map(len, PROTOCOLS))
    for name, kind in PROTOCOLS.items():
        print(f"  {name:{width}}  {(kind.__doc__ or '').splitlines()[0]}")
    return 0


def recipes(arguments: Arguments) -> int:
    """List the recipes."""
    tyro.cli(_Nothing, prog="contrex recipes", description="List the recipes.", args=arguments)
    from contrex.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"  {name:{width}}  {(recipe.__doc__ or '').splitlines()[0]}")
    return 0


def doctor(arguments: Arguments) -> int:
    """Tell what this machine can do and what is wrong with it; exits with 1 when something is."""
    tyro.cli(_Nothing, prog="contrex doctor", description="Tell what this machine can do.", args=arguments)
    from contrex.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject:12} {finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1


@dataclass(frozen=True)
class _Nothing:
    """A command without options."""


COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "quickstart": quickstart,
    "train": train,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "report": report,
    "compare": compare,
    "data": data,
    "recipes": recipes,
    "explainers": explainers,
    "metrics": metrics,
    "doctor": doctor,
}


def _parse(kind: type[T], command: str, arguments: Arguments, *, default: T | None = None) -> T:
    """The options of a command; exits with 2 and a message on an unknown one, with 0 after --help.

    Raises:
        ArgumentError: a value that its dataclass refuses; tyro prints those in its own words and exits.
    """
    prog, config, printed = f"contrex {command}", (tyro.conf.AvoidSubcommands,), io.StringIO()
    about = f"{kind.__doc__}\n\n{DATA_HELP}" if kind in (Train, EvaluateModel, EvaluateRun) else None
    try:
        with contextlib.redirect_stderr(printed), RULES:
            if default is None:
                return tyro.cli(kind, prog=prog, args=arguments, config=config)
            return tyro.cli(kind, prog=prog, args=arguments, default=default, config=config, description=about)
    except SystemExit as stop:
        refusal = _refusal(stop)
        if refusal is not None:
            raise refusal from None
        print(printed.getvalue(), end="", file=sys.stderr)
        raise


def _refusal(error: BaseException | None) -> ArgumentError | None:
    """The `ArgumentError` that led to `error`, if one did."""
    while error is not None and not isinstance(error, ArgumentError):
        error = error.__context__
    return error


RULES = ConstructorRegistry()
"""Where the command line differs from tyro's own."""


@RULES.primitive_rule
def _pairs(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, str]] | None:
    """Dictionaries are `KEY VALUE KEY VALUE ...`, which replaces all of the default, or nothing, which empties it."""
    if info.type != dict[str, str]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY VALUE ...]",
        instance_from_str=_paired,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for pair in value.items() for word in pair],
    )


def _paired(words: Sequence[str]) -> dict[str, str]:
    if len(words) % 2:
        raise ArgumentError(f"options come as KEY VALUE KEY VALUE ...: {words[-1]!r} has no value.")
    return dict(zip(words[::2], words[1::2], strict=True))


@contextlib.contextmanager
def _processes(command: str) -> Iterator[None]:
    """Around a command: where torchrun started several processes they talk to each other, and the first one prints."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    if command not in ("train", "evaluate"):
        raise ArgumentError(f"contrex {command} is for one process: torchrun starts contrex train or evaluate.")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # otherwise each process advises to trade exactness for speed
    from contrex import ranks

    with ranks.process_group(), contextlib.ExitStack() as silenced:
        if ranks.rank() > 0:
            nowhere = silenced.enter_context(Path(os.devnull).open("w"))
            silenced.enter_context(contextlib.redirect_stdout(nowhere))
            silenced.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _overview() -> str:
    lines = [f"  {name:11} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    head = ["usage: contrex COMMAND [OPTIONS]", "", "Contrastive explanations of image classifiers.", ""]
    foot = ["", "contrex COMMAND --help lists a command's options; contrex --version the version."]
    return "\n".join([*head, *lines, *foot])


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _print_summary(runs: Sequence[RunRecord], title: str) -> None:
    from rich.console import Console

    from contrex.report import summary_table

    table = summary_table(runs)
    table.title = title or None
    Console().print(table)
