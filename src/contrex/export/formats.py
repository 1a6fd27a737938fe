"""The formats of an export: what each refuses, how it is written, and how its library loads it back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.models import Classifier, eval_mode, load_classifier, model_logits
from contrex.models.libraries import built_with_weights
from contrex.models.load import literal
from contrex.settings import Model
from contrex.training.trained import without_file

NUM_PROBES = 2
"""How many random images the logits are compared on."""

Logits = Callable[[Tensor], Tensor]
"""A function from pixel values in [0, 1] `[N,3,S,S]` to logits `[N,K]`."""


@dataclass(frozen=True)
class Exportable:
    """The classifier that is exported, and the settings that build it. `card` is what the JSON file beside it says."""

    model: Model
    classifier: Classifier
    classes: tuple[str, ...]
    size: int
    card: Mapping[str, Any]

    @property
    def library(self) -> str:
        """The library that builds the network."""
        return self.model.name.partition(":")[0]

    @property
    def architecture(self) -> str:
        """Its name there, without that of torchvision's weights."""
        name = self.model.name.partition(":")[2]
        return name.partition(".")[0] if self.library == "torchvision" else name

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the library's builder."""
        options = {key: literal(text) for key, text in self.model.options.items()}
        if self.library == "torchvision" and self.model.pretrained:
            options = {**built_with_weights(self.architecture), **options}
        return {**options, "num_classes": len(self.classes)}


def logits_of(classifier: Classifier, network: nn.Module) -> Logits:
    """The logits of a network, in eval mode, of pixel values that `classifier` normalises."""

    def logits(images: Tensor) -> Tensor:
        with eval_mode(network):
            return model_logits(network, classifier.normalise(images))

    return logits


# --- safetensors ----------------------------------------------------------------------------------------------------


def _state(own: Exportable) -> dict[str, Tensor]:
    """The state_dict on the CPU, each tensor with memory of its own."""
    return {
        # Cloned, as safetensors refuses tensors that share memory, which tied weights do.
        key: value.detach().cpu().clone().contiguous()
        for key, value in own.classifier.network.state_dict().items()
    }


def _write_safetensors(own: Exportable, path: Path) -> None:
    from safetensors.torch import save_file

    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in own.card.items()}
    save_file(_state(own), path, metadata={**texts, "format": "pt"})  # the "format" that other readers expect


def _load_safetensors(own: Exportable, path: Path) -> tuple[str, Logits | None]:
    own_count = None if own.card["run"] is None else len(own.classes)  # of a library's weights the file tells
    again = load_classifier(replace(without_file(own.model), num_classes=own_count, weights=path))
    return "contrex", logits_of(again, again.network)


def _refuse_nothing(own: Exportable) -> None:
    """Refuse no network: each has a state_dict."""


# --- torchvision and timm -------------------------------------------------------------------------------------------


def _refuse_others(library: str) -> Callable[[Exportable], None]:
    def refuse(own: Exportable) -> None:
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


def _write_pickle_free(own: Exportable, path: Path) -> None:
    torch.save(_state(own), path)


def _load_torchvision(own: Exportable, path: Path) -> tuple[str, Logits | None]:
    import torchvision

    network: nn.Module = torchvision.models.get_model(own.architecture, weights=None, **own.arguments)
    network.load_state_dict(torch.load(path, weights_only=True))
    return f"torchvision {torchvision.__version__}", logits_of(own.classifier, network)


def _load_timm(own: Exportable, path: Path) -> tuple[str, Logits | None]:
    import timm

    network: nn.Module = timm.create_model(own.architecture, checkpoint_path=str(path), **own.arguments)
    return f"timm {timm.__version__}", logits_of(own.classifier, network)


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


def _refuse_without_exporter(own: Exportable) -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ArgumentError(f"`format` onnx needs {' and '.join(missing)}: pip install 'contrex[onnx]'.")


def _write_onnx(own: Exportable, path: Path) -> None:
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


def _load_onnx(own: Exportable, path: Path) -> tuple[str, Logits | None]:
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
class Format:
    """A format: what it refuses, how it is written and loaded back, and the line of Python that loads it."""

    suffix: str
    refuse: Callable[[Exportable], None]
    write: Callable[[Exportable, Path], None]
    load: Callable[[Exportable, Path], tuple[str, Logits | None]]
    how: str


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        ".safetensors", _refuse_nothing, _write_safetensors, _load_safetensors, "safetensors.torch.load_file({file!r})"
    ),
    "torchvision": Format(
        ".torchvision.pth",
        _refuse_others("torchvision"),
        _write_pickle_free,
        _load_torchvision,
        "torchvision.models.get_model({name!r}, {arguments}).load_state_dict(torch.load({file!r}, weights_only=True))",
    ),
    "timm": Format(
        ".timm.safetensors",
        _refuse_others("timm"),
        _write_safetensors,
        _load_timm,
        "timm.create_model({name!r}, checkpoint_path={file!r}, {arguments})",
    ),
    "onnx": Format(
        ".onnx",
        _refuse_without_exporter,
        _write_onnx,
        _load_onnx,
        "onnxruntime.InferenceSession({file!r}).run(['logits'], {{'images': images}})",
    ),
}
"""The formats that `contrex export` writes."""
