"""The command `retrofit`, which gives a trained network better heatmaps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from contrex import settings
from contrex.cli.options import Arguments, Evaluation, console, parsed, print_summary
from contrex.errors import ArgumentError, ContrexError, InterruptedRunError, printable
from contrex.importing import uncollected
from contrex.recipes.retrofit import photos_retrofit

if TYPE_CHECKING:
    from contrex.retrofit import Order, Retrofitted

RECIPE = photos_retrofit()
DEFAULT_SIDE = 224
SHRUNK = 0.5
"""Heatmaps whose spread falls below this share of what it was are told."""

MEASURED = (
    "top1",
    "content_heatmap",
    "content_heatmap_at_spread",
    "pointing_game",
    "insertion_auc",
    "deletion_auc",
    "cgc_loss",
    "spread",
)
OWN_EVALUATION = settings.Evaluation(metrics=MEASURED, split="val")

OWN_NAMES = {
    "`data.val_share`": "--kept-out",
    "`data.path`": "--images",
    "`data.further`": "--images",
    "--data.on-bad-image": "--on-bad-image",
}
"""What errors call the options that have other names in a recipe."""


@dataclass(frozen=True)
class Photos:
    """Photos without labels."""

    images: tuple[Path, ...]
    """Folders with photos, also in folders below them. Their names and labels are not read."""
    kept_out: float = settings.UnlabelledPhotos.val_share
    """Share of the photos that are kept out, to see which decisions stay."""
    image_size: int | None = None
    """The side of the square that the network sees, in pixels; None is the run's, that of the library's own weights
    (--pretrained), or 224. It is cut out of a photo whose shorter side is 8/7 of it, or theirs."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Whether a photo that cannot be read is an error, or left out: then each is read once for that."""


@dataclass(frozen=True)
class Retrofit:
    """Give a trained network better heatmaps, from photos without labels, as long as its decisions stay.

    --model NAME is short for --model.name. --evaluate-on PREFIX:PATH measures before and after on images with labels
    too; --metrics, --limit and the other options of `contrex evaluate` say how.
    """

    photos: Annotated[Photos, tyro.conf.arg(name="")]
    run: tyro.conf.Positional[Path | None] = None
    """The folder of a trained run, instead of --model."""
    model: settings.Model = field(default_factory=settings.Model)
    method: settings.Retrofit = RECIPE.method  # type: ignore[assignment]
    augmentation: settings.Augmentation = RECIPE.augmentation
    optimizer: settings.Optimizer = RECIPE.optimizer
    schedule: settings.Schedule = RECIPE.schedule
    training: settings.Training = RECIPE.training
    offset: float | None = 0.0
    """What is taken off the evidence of all classes alike after the training, in shares of a cell's mean: it makes
    heatmaps smaller, not better, and changes no probability. None looks for a size."""
    evaluation: Evaluation = OWN_EVALUATION
    folder: Path | None = None
    """The folder for weights, records and reports; None is runs/retrofit-NAME."""
    preview: bool = False
    """Only say what it would take: photos, parameters, memory and time, from a few steps."""
    resume: bool = False
    """Continue what is in the folder."""


def retrofit(arguments: Arguments) -> int:
    """Give a trained network better heatmaps from photos without labels, and keep its decisions."""
    try:
        return _retrofit(arguments)
    except ContrexError as error:
        told = str(error)
        for name, own in OWN_NAMES.items():
            told = told.replace(name, own)
        error.args = (told, *error.args[1:])
        raise


def _retrofit(arguments: Arguments) -> int:
    measured, rest = _evaluate_on(["--model.name" if word == "--model" else word for word in arguments])
    options = parsed(Retrofit, "retrofit", rest, default=Retrofit(Photos(())))
    if options.run is not None and options.model != settings.Model():
        raise ArgumentError("RUN and --model.* are two networks: give one of them.")
    if options.run is None and options.model.is_untrained:
        raise ArgumentError(
            "`model.weights` is needed: a retrofit keeps what a trained network knows. Or name a run's folder, or pass "
            "--pretrained for the library's own weights."
        )
    _check_evaluation(options.evaluation, measured)
    folder = options.folder or Path("runs") / f"retrofit-{_name(options)}"
    with uncollected():
        from contrex import retrofit as package

    if options.preview:
        with TemporaryDirectory() as passing:
            print(printable("\n".join(package.previewed(_order(options, measured, Path(passing))).lines())))
        return 0
    if options.resume and not (folder / "recipe.json").is_file():
        raise ArgumentError(f"--resume finds no run in {folder}: name its --folder, or start one without --resume.")
    if not options.resume and (folder / "recipe.json").is_file():
        raise ArgumentError(f"{folder} already holds a run: continue with --resume, or choose another --folder.")
    order = _order(options, measured, folder)
    try:
        done = package.retrofit(order, folder, console=console(), resume=options.resume)
    except InterruptedRunError as error:  # its own command would train on, and write no weights
        raise InterruptedRunError(error.stopped, error.signal_number) from None
    _tell(done, options)
    return 0


def _evaluate_on(words: list[str]) -> tuple[settings.Data | None, list[str]]:
    """The data set that `--evaluate-on` names, and the other arguments."""
    if "--evaluate-on" not in words:
        return None, words
    place = words.index("--evaluate-on")
    name = words[place + 1] if place + 1 < len(words) else "-"
    rest = words[:place] + words[place + 2 :]
    if name.startswith("-") or "--evaluate-on" in rest:
        raise ArgumentError("--evaluate-on takes one data set, PREFIX:PATH or PATH, and is given once.")
    from contrex.data.named import data_named

    return data_named(name), rest


def _check_evaluation(evaluation: settings.Evaluation, measured: settings.Data | None) -> None:
    """Refuse options of the evaluation that would be without effect."""
    if evaluation.device != OWN_EVALUATION.device:
        raise ArgumentError(f"--device {evaluation.device}: a retrofit has one, --training.device {evaluation.device}.")
    if measured is None and evaluation != OWN_EVALUATION:
        names = [
            one.name for one in fields(evaluation) if getattr(evaluation, one.name) != getattr(OWN_EVALUATION, one.name)
        ]
        options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise ArgumentError(
            f"{options}: how images with labels are measured, and none are named: add --evaluate-on PREFIX:PATH, or "
            "leave it out. The batch and the workers of the training are --training.batch-size and --training.workers."
        )


def _name(options: Retrofit) -> str:
    if options.run is not None:
        return options.run.name
    return options.model.name.rpartition(":")[2]


def _order(options: Retrofit, measured: settings.Data | None, folder: Path) -> Order:
    """What the options ask for; the network of a run is written to `folder`."""
    from contrex.retrofit import Order
    from contrex.retrofit.order import with_photos
    from contrex.retrofit.run import original_of_library, original_of_run

    model, size, resize = options.model, DEFAULT_SIDE, 0
    if options.run is not None:
        model, size, resize = original_of_run(options.run, folder)
    elif model.pretrained:
        model, made_for, short_side = original_of_library(model, folder)
        size, resize = made_for or size, short_side or resize
    if options.photos.image_size is not None:
        size, resize = options.photos.image_size, 0
    resize = resize or round(size * 8 / 7)
    recipe = replace(
        RECIPE,
        name="retrofit",
        model=model,
        method=options.method,
        augmentation=options.augmentation,
        optimizer=options.optimizer,
        schedule=options.schedule,
        training=options.training,
    )
    photos = {
        "image_size": size,
        "resize": resize,
        "val_share": options.photos.kept_out,
        "val_seed": options.training.seed,
        "on_bad_image": options.photos.on_bad_image,
    }
    frame = size, resize  # of the network, which images to measure on are brought into
    if measured is not None and (measured.image_size, measured.short_side) != frame:
        measured = replace(measured, image_size=size, **({"resize": resize} if hasattr(measured, "resize") else {}))
    evaluation = replace(options.evaluation, device=options.training.device)
    return Order(with_photos(recipe, options.photos.images, **photos), measured, evaluation, options.offset)


def _tell(done: Retrofitted, options: Retrofit) -> None:
    """Print what changed, and where everything is."""
    print_summary(done.kept_out, "photos kept out")
    if done.measured:
        print_summary(done.measured, done.measured[0].record.dataset["name"])
    if done.way < 1:
        print(
            f"went back to {done.way:.0%} of the way, as fewer than {options.method.tolerance:g} % of the sure "
            f"decisions stayed: less changes with a smaller --method.weight ({options.method.weight:g})."
        )
    found = (run.record.metric("spread") for run in done.kept_out[:2])  # without the offset, which is meant to shrink
    before, after = (0.0 if one is None or one.value is None else one.value for one in found)
    if after < SHRUNK * before:
        print(
            f"look at the report: heatmaps cover {after:.0f} % of their cells instead of {before:.0f} %. Maps that "
            "shrink so far may lie in wrong places, whatever the decisions say (docs/retrofit.md): measure "
            "content_heatmap_at_spread where there are boxes (--evaluate-on), or take a smaller --method.weight."
        )
    print(f"weights: {done.weights}\nreport: {done.report}")
    if done.measured_report is not None:
        print(f"report: {done.measured_report}")
