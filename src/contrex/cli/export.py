"""The command `export`, which writes a classifier for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from contrex import settings
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError
from contrex.importing import uncollected


@dataclass(frozen=True)
class Export:
    """Write a classifier for use elsewhere, and check that it gives the same logits there."""

    format: Literal["safetensors", "torchvision", "timm", "onnx"]
    """`safetensors` is the plain state_dict; torchvision and timm load theirs by the network's name; `onnx` needs
    contrex[onnx]."""
    run: tyro.conf.Positional[Path | None] = None
    """The folder of a run."""
    model: settings.Model = field(default_factory=settings.Model)
    output: Path | None = None
    """The file; None is RUN/classifier-CHECKPOINT, or the architecture's name, with the format's suffix. Classes and
    normalisation are written beside it."""
    checkpoint: Literal["last", "best"] = "last"
    """The last weights, or those with the best validation accuracy."""


def export(arguments: Arguments) -> int:
    """Write a trained classifier as safetensors, for torchvision or timm, or as ONNX, and check it."""
    options = parsed(Export, "export", arguments)
    if (options.run is None) == (options.model == settings.Model()):
        raise ArgumentError("name the folder of a run, or a --model with --pretrained or --model.weights: one of them.")
    with uncollected():
        from contrex.export import export_model, export_run

    if options.run is None and options.checkpoint != "last":
        raise ArgumentError(f"`checkpoint` {options.checkpoint} is for runs, and a --model has one file: leave it out.")
    if options.run is None:
        exported = export_model(options.model, options.format, options.output)
    else:
        exported = export_run(options.run, options.format, output=options.output, checkpoint=options.checkpoint)
    print(f"exported: {exported.path}\ncard: {exported.card}\nchecked: {exported.checked}")
    return 0
