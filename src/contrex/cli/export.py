"""The command that takes a classifier elsewhere: `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from contrex.cli.options import Arguments, parsed


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
    options = parsed(Export, "export", arguments)
    from contrex.export import export_run

    exported = export_run(options.run, options.format, output=options.output, checkpoint=options.checkpoint)
    print(f"exported: {exported.path}\ncard: {exported.card}\nchecked: {exported.checked}")
    return 0
