"""Exporting a classifier: the file, the card beside it, and the check that it gives the same logits."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contrex._version import __version__
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, WeightsError, unknown_name
from contrex.export.formats import FORMATS, NUM_PROBES, Exportable, Format, logits_of
from contrex.models import Classifier, class_names, eval_mode, load_classifier, model_logits
from contrex.ops.likeness import differ
from contrex.records import to_plain, write_json
from contrex.settings import Model
from contrex.training.checkpoint import Checkpoints
from contrex.training.trained import trained

SCHEMA_VERSION = 1

TOLERANCE = 1e-4
"""The largest allowed difference of a logit, as a share of the largest logit, or of 1 if that is smaller."""

USUAL_SIDE = 224
"""The side of the square of a network of which nobody says it."""


@dataclass(frozen=True)
class Exported:
    """The exported file, the JSON file beside it (its card), and a sentence on how it was checked."""

    path: Path
    card: Path
    checked: str


def export_run(run: Path, kind: str, *, output: Path | None = None, checkpoint: str = "last") -> Exported:
    """Write the trained classifier of a run in the format `kind`, one of `FORMATS`, and check the file.

    `output` is by default RUN/classifier-CHECKPOINT with the format's suffix. An existing file is replaced.

    Raises:
        UnknownNameError: there is no such format.
        ArgumentError: the format cannot hold this network, or needs a package that is not installed.
        CheckpointError: the run has no such checkpoint.
        WeightsError: loaded back, the file gives other logits; it is then deleted.
    """
    if kind not in FORMATS:
        raise unknown_name("`format`", kind, FORMATS)
    form = FORMATS[kind]
    path = _checked_path(run / f"classifier-{checkpoint}{form.suffix}" if output is None else output, form, kind)
    return _export(_loaded(run, checkpoint, kind), form, path)


def export_model(model: Model, kind: str, output: Path | None = None) -> Exported:
    """Write a classifier of a library, with its own weights or those of a file, in the format `kind`, and check it.

    `output` is by default ARCHITECTURE with the format's suffix, in the working folder. Errors are as in `export_run`.
    """
    if kind not in FORMATS:
        raise unknown_name("`format`", kind, FORMATS)
    if model.is_untrained:
        raise ArgumentError("`model.weights` is needed: nobody exports random weights. Or pass --pretrained, or a run.")
    form = FORMATS[kind]
    name = model.name.partition(":")[2].replace("/", "-")
    path = _checked_path(Path(f"{name}{form.suffix}") if output is None else output, form, kind)
    return _export(_of_model(model, kind), form, path)


def _checked_path(path: Path, form: Format, kind: str) -> Path:
    suffix = f".{form.suffix.rpartition('.')[2]}"
    if path.suffix != suffix:
        raise ArgumentError(f"`output` {path} needs the suffix {suffix} of the format {kind}.")
    return path


def _export(classifier: Exportable, form: Format, path: Path) -> Exported:
    form.refuse(classifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        form.write(classifier, written)
        checked = _check(classifier, form, written)
        digest = hashlib.sha256(written.read_bytes()).hexdigest()
        written.replace(path)
    card = path.with_name(f"{path.name}.json")
    load = form.how.format(name=classifier.architecture, file=path.name, arguments=_keywords(classifier.arguments))
    write_json(card, {"file": path.name, "sha256": digest, **classifier.card, "load": load, "checked": checked})
    return Exported(path, card, checked)


def _loaded(run: Path, checkpoint: str, kind: str) -> Exportable:
    content = Checkpoints(run).load(checkpoint)
    recipe, classifier, classes = trained(content)
    resize, size = view_sizes(recipe.data)
    of_run = {
        "recipe": recipe.name,
        "seed": recipe.training.seed,
        "checkpoint": checkpoint,
        "step": content["place"]["step"],
        "epochs_done": content["place"]["epoch"],
        "ema": recipe.training.ema,
    }
    card = _card(recipe.model, classifier, classes, kind, sizes=(resize, size), run=of_run)
    return Exportable(recipe.model, classifier, classes, size, card)


def _of_model(model: Model, kind: str) -> Exportable:
    classifier = load_classifier(model)
    size = classifier.image_size or USUAL_SIDE
    with torch.inference_mode(), eval_mode(classifier.network):
        logits = model_logits(classifier.network, classifier.normalise(torch.zeros(1, 3, size, size)))
    names = classifier.names or class_names(logits.shape[1])
    sizes = (classifier.short_side or size, size)
    card = _card(model, classifier, names, kind, sizes=sizes, run=None)
    return Exportable(model, classifier, names, size, card)


def _card(
    model: Model, classifier: Classifier, classes: Sequence[str], kind: str, *, sizes: tuple[int, int], run: object
) -> Mapping[str, Any]:
    """What the JSON file says."""
    library, _, architecture = model.name.partition(":")
    plain: Mapping[str, Any] = to_plain({
        "schema_version": SCHEMA_VERSION,
        "format": kind,
        "network": {"library": library, "architecture": architecture, "options": model.options,
                    "stem": model.stem, "pooling": model.pooling, "pooling_temperature": model.pooling_temperature,
                    "num_classes": len(classes)},
        "classes": classes,
        "input": {"channels": "RGB", "range": (0, 1), "mean": classifier.mean, "std": classifier.std,
                  "resize_shorter_side": sizes[0], "central_square": sizes[1], "normalised_inside": kind == "onnx"},
        "run": run,
        "versions": {"contrex": __version__, "torch": str(torch.__version__)},
    })  # fmt: skip
    return plain


def _check(own: Exportable, form: Format, path: Path) -> str:
    """Load the file back and compare its logits with the run's; return a sentence on what was done."""
    # Random images, always the same: an export that fails its check fails again.
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_PROBES, 3, own.size, own.size, generator=generator)
    where, logits = form.load(own, path)
    if logits is None:
        return where
    with torch.inference_mode():
        expected, got = logits_of(own.classifier, own.classifier.network)(images), logits(images)
    fits = expected.shape == got.shape
    difference = float((expected - got).abs().max()) if fits else float("nan")
    if not fits or bool(differ(got.flatten(), expected.flatten(), TOLERANCE, least=1.0)):
        raise WeightsError(
            f"exported as {own.card['format']} and loaded back by {where}, {own.model.name} gives other "
            f"logits: {list(got.shape)} instead of {list(expected.shape)}, largest difference {difference:.3g}. "
            "Nothing was written."
        )
    return f"loaded back by {where}; largest difference of a logit {difference:.1e}"


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
