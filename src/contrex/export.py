"""Exporting a classifier for use elsewhere: safetensors, torchvision, timm or ONNX.

    RUN/classifier-last.safetensors              the state_dict with plain keys, and what it is in its metadata
    RUN/classifier-last.torchvision.pth          for torchvision.models.get_model(NAME, num_classes=K).load_state_dict
    RUN/classifier-last.timm.safetensors         for timm.create_model(NAME, num_classes=K, checkpoint_path=FILE)
    RUN/classifier-last.onnx                     a graph from pixel values in [0, 1] to logits
    RUN/classifier-last.onnx.json                beside each of them: classes, normalisation, size, and how to load it

Each file is loaded back by the library that it is for, and its logits are compared with the run's; only then it gets
its name. The ONNX graph normalises its input itself, as it may run without any of our code: it takes RGB float32
[N,3,S,S] with values in [0, 1], for any N. The other three files are weights only. Their input is (image - mean) / std,
with the mean and std in the JSON file beside them.

Legend: N images, K classes, S side of the square in pixels.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrex._version import __version__
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, WeightsError, unknown_name
from contrex.models import Classifier, class_names, eval_mode, load_classifier, model_logits
from contrex.models.load import literal
from contrex.records import to_plain, write_json
from contrex.settings import Model
from contrex.training.checkpoint import Checkpoints
from contrex.training.trained import trained, without_file

SCHEMA_VERSION = 1

TOLERANCE = 1e-4
"""The largest allowed difference of a logit, as a share of the largest logit, or of 1 if that is smaller."""

USUAL_SIDE = 224
"""The side of the square of a network of which nobody says it."""

NUM_PROBES = 2
"""How many random images the logits are compared on."""


@dataclass(frozen=True)
class Exported:
    """The exported file, the JSON file beside it (its card), and a sentence on how it was checked."""

    path: Path
    card: Path
    checked: str


@dataclass(frozen=True)
class _Trained:
    """The classifier that is exported, and the settings that build it. `card` is what the JSON file beside it says."""

    model: Model
    classifier: Classifier
    classes: tuple[str, ...]
    size: int
    card: Mapping[str, Any]

    @property
    def library(self) -> str:
        return self.model.name.partition(":")[0]

    @property
    def architecture(self) -> str:
        return self.model.name.partition(":")[2]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the library's builder."""
        options = {key: literal(text) for key, text in self.model.options.items()}
        return {**options, "num_classes": len(self.classes)}


Logits = Callable[[Tensor], Tensor]
"""A function from pixel values in [0, 1] `[N,3,S,S]` to logits `[N,K]`."""


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


def _checked_path(path: Path, form: _Format, kind: str) -> Path:
    suffix = f".{form.suffix.rpartition('.')[2]}"
    if path.suffix != suffix:
        raise ArgumentError(f"`output` {path} needs the suffix {suffix} of the format {kind}.")
    return path


def _export(classifier: _Trained, form: _Format, path: Path) -> Exported:
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


def _loaded(run: Path, checkpoint: str, kind: str) -> _Trained:
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
    return _Trained(recipe.model, classifier, classes, size, card)


def _of_model(model: Model, kind: str) -> _Trained:
    classifier = load_classifier(model)
    size = classifier.image_size or USUAL_SIDE
    with torch.inference_mode(), eval_mode(classifier.network):
        logits = model_logits(classifier.network, classifier.normalise(torch.zeros(1, 3, size, size)))
    names = classifier.names or class_names(logits.shape[1])
    sizes = (classifier.short_side or size, size)
    card = _card(model, classifier, names, kind, sizes=sizes, run=None)
    return _Trained(model, classifier, names, size, card)


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


# --- checking -------------------------------------------------------------------------------------------------------


def _check(own: _Trained, form: _Format, path: Path) -> str:
    """Load the file back and compare its logits with the run's; return a sentence on what was done."""
    # Random images, always the same: an export that fails its check fails again.
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_PROBES, 3, own.size, own.size, generator=generator)
    where, logits = form.load(own, path)
    if logits is None:
        return where
    with torch.inference_mode():
        expected, got = _own_logits(own)(images), logits(images)
    fits = expected.shape == got.shape
    difference = float((expected - got).abs().max()) if fits else float("nan")
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise WeightsError(
            f"exported as {own.card['format']} and loaded back by {where}, {own.model.name} gives other "
            f"logits: {list(got.shape)} instead of {list(expected.shape)}, largest difference {difference:.3g}. "
            "Nothing was written."
        )
    return f"loaded back by {where}; largest difference of a logit {difference:.1e}"


def _own_logits(own: _Trained) -> Logits:
    return _logits(own.classifier, own.classifier.network)


def _logits(classifier: Classifier, network: nn.Module) -> Logits:
    def logits(images: Tensor) -> Tensor:
        with eval_mode(network):
            return model_logits(network, classifier.normalise(images))

    return logits


# --- safetensors ----------------------------------------------------------------------------------------------------


def _state(own: _Trained) -> dict[str, Tensor]:
    """The state_dict on the CPU, each tensor with memory of its own."""
    return {
        # Cloned, as safetensors refuses tensors that share memory, which tied weights do.
        key: value.detach().cpu().clone().contiguous()
        for key, value in own.classifier.network.state_dict().items()
    }


def _write_safetensors(own: _Trained, path: Path) -> None:
    from safetensors.torch import save_file

    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in own.card.items()}
    save_file(_state(own), path, metadata={**texts, "format": "pt"})  # the "format" that other readers expect


def _load_safetensors(own: _Trained, path: Path) -> tuple[str, Logits | None]:
    own_count = None if own.card["run"] is None else len(own.classes)  # of a library's weights the file tells
    again = load_classifier(replace(without_file(own.model), num_classes=own_count, weights=path))
    return "contrex", _logits(again, again.network)


def _refuse_nothing(own: _Trained) -> None:
    """Refuse no network: each has a state_dict."""


# --- torchvision and timm -------------------------------------------------------------------------------------------


def _refuse_others(library: str) -> Callable[[_Trained], None]:
    def refuse(own: _Trained) -> None:
        name = own.model.name
        if own.library != library:
            whose = "contrex's own" if own.library == "contrex" else f"one of {own.library}"
            reason = f"{name} is {whose}, and {library} could not build it"
        elif own.model.stem != "built-in":
            reason = f"{name} was trained with the stem {own.model.stem!r}, and {library} builds it with its own"
        elif own.model.pooling != "mean":
            reason = f"{name} was trained with the pooling {own.model.pooling}, and {library} builds its own"
        else:
            return
        raise ArgumentError(
            f"`format` {library} is for networks that {library} builds; {reason}: use safetensors or onnx."
        )

    return refuse


def _write_pickle_free(own: _Trained, path: Path) -> None:
    torch.save(_state(own), path)


def _load_torchvision(own: _Trained, path: Path) -> tuple[str, Logits | None]:
    import torchvision

    network: nn.Module = torchvision.models.get_model(own.architecture, weights=None, **own.arguments)
    network.load_state_dict(torch.load(path, weights_only=True))
    return f"torchvision {torchvision.__version__}", _logits(own.classifier, network)


def _load_timm(own: _Trained, path: Path) -> tuple[str, Logits | None]:
    import timm

    network: nn.Module = timm.create_model(own.architecture, checkpoint_path=str(path), **own.arguments)
    return f"timm {timm.__version__}", _logits(own.classifier, network)


# --- ONNX -----------------------------------------------------------------------------------------------------------


class _Normalising(nn.Module):
    """The network with its normalisation in front, which so becomes part of the graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.register_buffer("mean", torch.tensor(classifier.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(classifier.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)  # no check of N, which the graph leaves open
        return logits


def _refuse_without_exporter(own: _Trained) -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ArgumentError(f"`format` onnx needs {' and '.join(missing)}: pip install 'contrex[onnx]'.")


def _write_onnx(own: _Trained, path: Path) -> None:
    images = torch.rand(NUM_PROBES, 3, own.size, own.size)
    with eval_mode(own.classifier.network):
        try:
            program = torch.onnx.export(
                _Normalising(own.classifier).eval(),
                (images,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ArgumentError(
                f"`format` onnx: torch's exporter cannot translate {own.model.name}: "
                f"{str(error).splitlines()[0].rstrip('.')}. Use safetensors."
            ) from None
    assert program is not None  # without a file name it returns the program
    for key, value in own.card.items():
        program.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    program.save(path, external_data=False)


def _load_onnx(own: _Trained, path: Path) -> tuple[str, Logits | None]:
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return f"onnxruntime {onnxruntime.__version__}", lambda images: _run_onnx(session, images)
    import onnx.reference

    evaluator = onnx.reference.ReferenceEvaluator(str(path))
    return f"the reference of onnx {onnx.__version__}", lambda images: _run_onnx(evaluator, images)


def _run_onnx(session: Any, images: Tensor) -> Tensor:
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


# --- the formats ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Format:
    """A format: what it refuses, how it is written and loaded back, and the line of Python that loads it."""

    suffix: str
    refuse: Callable[[_Trained], None]
    write: Callable[[_Trained, Path], None]
    load: Callable[[_Trained, Path], tuple[str, Logits | None]]
    how: str


FORMATS: Mapping[str, _Format] = {
    "safetensors": _Format(
        ".safetensors", _refuse_nothing, _write_safetensors, _load_safetensors, "safetensors.torch.load_file({file!r})"
    ),
    "torchvision": _Format(
        ".torchvision.pth",
        _refuse_others("torchvision"),
        _write_pickle_free,
        _load_torchvision,
        "torchvision.models.get_model({name!r}, {arguments}).load_state_dict(torch.load({file!r}, weights_only=True))",
    ),
    "timm": _Format(
        ".timm.safetensors",
        _refuse_others("timm"),
        _write_safetensors,
        _load_timm,
        "timm.create_model({name!r}, checkpoint_path={file!r}, {arguments})",
    ),
    "onnx": _Format(
        ".onnx",
        _refuse_without_exporter,
        _write_onnx,
        _load_onnx,
        "onnxruntime.InferenceSession({file!r}).run(['logits'], {{'images': images}})",
    ),
}
"""The formats that `contrex export` writes."""


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
