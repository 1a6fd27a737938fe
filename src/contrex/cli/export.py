"""The command `export`, which writes a classifier for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from contrex.cli.options import Arguments, parsed


@dataclass(frozen=True)
class Export:
    """Write a trained classifier for use elsewhere, and check that it gives the same logits there."""

    run: tyro.conf.Positional[Path]
    """The folder of a run."""
    format: Literal["safetensors", "torchvision", "timm", "onnx"]
    """`safetensors` is the plain state_dict; torchvision and timm load theirs by the network's name; `onnx` needs
    contrex[onnx]."""
    output: Path | None = None
    """The file; None is RUN/classifier-CHECKPOINT with the format's suffix. Classes and normalisation are written
    beside it."""
    checkpoint: Literal["last", "best"] = "last"
    """The last weights, or those with the best validation accuracy."""


def export(arguments: Arguments) -> int:
    """Write a trained classifier as safetensors, for torchvision or timm, or as ONNX, and check it."""
    options = parsed(Export, "export", arguments)
    from contrex.export import export_run

    exported = export_run(options.run, options.format, output=options.output, checkpoint=options.checkpoint)
    print(f"exported: {exported.path}\ncard: {exported.card}\nchecked: {exported.checked}")
    return 0
