"""A trained classifier for use elsewhere: in safetensors, torchvision, timm or ONNX.

    RUN/classifier-last.safetensors              the state_dict with plain keys, and what it is in its metadata
    RUN/classifier-last.torchvision.pth          for torchvision.models.get_model(NAME, num_classes=K).load_state_dict
    RUN/classifier-last.timm.safetensors         for timm.create_model(NAME, num_classes=K, checkpoint_path=FILE)
    RUN/classifier-last.onnx                     a graph from pixel values in [0, 1] to logits
    RUN/classifier-last.onnx.json                beside each of them: classes, normalisation, size, and how to load it

Each file is loaded back by the library that it is for, and its logits are compared with the run's, before it gets its
name. The ONNX graph normalises its input itself, as whoever runs it has no other code of ours: it takes RGB float32
[N,3,S,S], any N, with values in [0, 1]. The other three are weights alone, so their input is (image - mean) / std with
the mean and std of the file beside them.

Legend: N images, K classes, S side of the square in pixels.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrex._version import __version__
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, WeightsError, unknown_name
from contrex.models import Classifier, eval_mode, load_classifier, model_logits
from contrex.models.load import literal
from contrex.records import to_plain, write_json
from contrex.settings import Model, Recipe
from contrex.training.checkpoint import Checkpoints
from contrex.training.trained import trained, without_file

SCHEMA_VERSION = 1

TOLERANCE = 1e-4
"""Largest difference of a logit from the run's, as a share of the largest logit, or of 1 where that is smaller."""

NUM_PROBES = 2
"""Random images that the logits are compared on."""


@dataclass(frozen=True)
class Exported:
    """The file, the card beside it, and how it was checked: one sentence."""

    path: Path
    card: Path
    checked: str


@dataclass(frozen=True)
class _Trained:
    """What is exported. `card` tells whoever finds the file what it is."""

    recipe: Recipe
    classifier: Classifier
    classes: tuple[str, ...]
    size: int
    card: Mapping[str, Any]

    @property
    def library(self) -> str:
        return self.recipe.model.name.partition(":")[0]

    @property
    def architecture(self) -> str:
        return self.recipe.model.name.partition(":")[2]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the library's builder is called with."""
        options = {key: literal(text) for key, text in self.recipe.model.options.items()}
        return {**options, "num_classes": len(self.classes)}


Logits = Callable[[Tensor], Tensor]
"""Pixel values in [0, 1] `[N,3,S,S]` to logits `[N,K]`."""


def export_run(run: Path, kind: str, *, output: Path | None = None, checkpoint: str = "last") -> Exported:
    """Write the trained classifier of a run folder as `kind`, one of `FORMATS`, and check it there.

    `output` is by default RUN/classifier-CHECKPOINT and the format's suffix; a file that is there is replaced.

    Raises:
        UnknownNameError: there is no such format.
        ArgumentError: the format cannot hold this network, or needs a package that is not installed.
        CheckpointError: the run has no such checkpoint.
        WeightsError: loaded back there, it gives other logits; nothing is left of it.
    """
    if kind not in FORMATS:
        raise unknown_name("`format`", kind, FORMATS)
    form = FORMATS[kind]
    path = run / f"classifier-{checkpoint}{form.suffix}" if output is None else output
    suffix = f".{form.suffix.rpartition('.')[2]}"
    if path.suffix != suffix:
        raise ArgumentError(f"`output` {path} needs the suffix {suffix} of the format {kind}.")
    found = _found(run, checkpoint, kind)
    form.refuse(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        form.write(found, written)
        checked = _checked(found, form, written)
        digest = hashlib.sha256(written.read_bytes()).hexdigest()
        written.replace(path)
    card = path.with_name(f"{path.name}.json")
    load = form.how.format(name=found.architecture, file=path.name, arguments=_keywords(found.arguments))
    write_json(card, {"file": path.name, "sha256": digest, **found.card, "load": load, "checked": checked})
    return Exported(path, card, checked)


def _found(run: Path, checkpoint: str, kind: str) -> _Trained:
    content = Checkpoints(run).load(checkpoint)
    recipe, classifier, classes = trained(content)
    resize, size = view_sizes(recipe.data)
    library, _, architecture = recipe.model.name.partition(":")
    card = {
        "schema_version": SCHEMA_VERSION,
        "format": kind,
        "network": {"library": library, "architecture": architecture, "options": recipe.model.options,
                    "stem": recipe.model.stem, "num_classes": len(classes)},
        "classes": classes,
        "input": {"channels": "RGB", "range": (0, 1), "mean": classifier.mean, "std": classifier.std,
                  "resize_shorter_side": resize, "central_square": size, "normalised_inside": kind == "onnx"},
        "run": {"recipe": recipe.name, "seed": recipe.training.seed, "checkpoint": checkpoint,
                "step": content["place"]["step"], "epochs_done": content["place"]["epoch"],
                "ema": recipe.training.ema},
        "versions": {"contrex": __version__, "torch": str(torch.__version__)},
    }  # fmt: skip
    return _Trained(recipe, classifier, classes, size, to_plain(card))


# --- checking -------------------------------------------------------------------------------------------------------


def _checked(found: _Trained, form: _Format, path: Path) -> str:
    """What loaded the file back, and how far its logits are from the run's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_PROBES, 3, found.size, found.size, generator=generator)
    where, logits = form.load(found, path)
    if logits is None:
        return where
    with torch.inference_mode():
        expected, got = _own_logits(found)(images), logits(images)
    fits = expected.shape == got.shape
    difference = float((expected - got).abs().max()) if fits else float("nan")
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise WeightsError(
            f"exported as {found.card['format']} and loaded back by {where}, {found.recipe.model.name} gives other "
            f"logits: {list(got.shape)} instead of {list(expected.shape)}, largest difference {difference:.3g}. "
            "Nothing was written."
        )
    return f"loaded back by {where}; largest difference of a logit {difference:.1e}"


def _own_logits(found: _Trained) -> Logits:
    return _logits(found.classifier, found.classifier.network)


def _logits(classifier: Classifier, network: nn.Module) -> Logits:
    def logits(images: Tensor) -> Tensor:
        with eval_mode(network):
            return model_logits(network, classifier.normalise(images))

    return logits


# --- safetensors ----------------------------------------------------------------------------------------------------


def _state(found: _Trained) -> dict[str, Tensor]:
    """The state_dict, each tensor with memory of its own."""
    return {
        key: value.detach().cpu().clone().contiguous() for key, value in found.classifier.network.state_dict().items()
    }


def _write_safetensors(found: _Trained, path: Path) -> None:
    from safetensors.torch import save_file

    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.card.items()}
    save_file(_state(found), path, metadata={**texts, "format": "pt"})  # the value that other readers expect


def _load_safetensors(found: _Trained, path: Path) -> tuple[str, Logits | None]:
    model = without_file(found.recipe.model)
    again = load_classifier(
        Model(model.name, model.options, model.stem, len(found.classes), path, mean=model.mean, std=model.std)
    )
    return "contrex", _logits(again, again.network)


def _refuse_nothing(found: _Trained) -> None:
    """Every network has a state_dict."""


# --- torchvision and timm -------------------------------------------------------------------------------------------


def _refuse_others(library: str) -> Callable[[_Trained], None]:
    def refuse(found: _Trained) -> None:
        name = found.recipe.model.name
        if found.library != library:
            whose = "contrex's own" if found.library == "contrex" else f"one of {found.library}"
            reason = f"{name} is {whose}, and {library} could not build it"
        elif found.recipe.model.stem != "built-in":
            reason = (
                f"{name} was trained with the stem {found.recipe.model.stem!r}, and {library} builds it with its own"
            )
        else:
            return
        raise ArgumentError(
            f"`format` {library} is for networks that {library} builds; {reason}: use safetensors or onnx."
        )

    return refuse


def _write_pickle_free(found: _Trained, path: Path) -> None:
    torch.save(_state(found), path)


def _load_torchvision(found: _Trained, path: Path) -> tuple[str, Logits | None]:
    import torchvision

    network: nn.Module = torchvision.models.get_model(found.architecture, weights=None, **found.arguments)
    network.load_state_dict(torch.load(path, weights_only=True))
    return f"torchvision {torchvision.__version__}", _logits(found.classifier, network)


def _load_timm(found: _Trained, path: Path) -> tuple[str, Logits | None]:
    import timm

    network: nn.Module = timm.create_model(found.architecture, checkpoint_path=str(path), **found.arguments)
    return f"timm {timm.__version__}", _logits(found.classifier, network)


# --- ONNX -----------------------------------------------------------------------------------------------------------


class _Normalising(nn.Module):
    """The network behind its own normalisation, which becomes part of the graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.register_buffer("mean", torch.tensor(classifier.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(classifier.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)  # no look at N, which the graph leaves open
        return logits


def _refuse_without_exporter(found: _Trained) -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ArgumentError(f"`format` onnx needs {' and '.join(missing)}: pip install 'contrex[onnx]'.")


def _write_onnx(found: _Trained, path: Path) -> None:
    images = torch.rand(NUM_PROBES, 3, found.size, found.size)
    with eval_mode(found.classifier.network):
        try:
            program = torch.onnx.export(
                _Normalising(found.classifier).eval(),
                (images,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ArgumentError(
                f"`format` onnx: torch's exporter cannot translate {found.recipe.model.name}: "
                f"{str(error).splitlines()[0].rstrip('.')}. Use safetensors."
            ) from None
    assert program is not None  # it writes nothing itself without a file name
    for key, value in found.card.items():
        program.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    program.save(path, external_data=False)


def _load_onnx(found: _Trained, path: Path) -> tuple[str, Logits | None]:
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
    """How a format is refused, written and loaded back, and the line of Python that loads it."""

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
"""What `contrex export` writes."""


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
