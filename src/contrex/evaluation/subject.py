"""The subject of an evaluation, and what a record says about how it was made."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from contrex import settings
from contrex._version import __version__
from contrex.data.sample import ImageSet
from contrex.models import Classifier
from contrex.records import to_plain


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a classifier, the images it is judged on, and where it comes from.

    `checkpoint` says which weights of a training run the classifier has; a record adds their SHA-256.
    """

    name: str
    classifier: Classifier
    images: ImageSet
    data: settings.Data
    augmentation: settings.Augmentation = field(default_factory=settings.Augmentation)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    sheets: Mapping[str, bytes] = field(default_factory=dict)
    """Pictures of the images that it was trained on: PNG files by title."""
    seed: int = 0


def configuration_of(subject: Subject, options: settings.Evaluation) -> dict[str, Any]:
    """How a record was made, as plain values: the subject's configuration, the evaluation, and the checkpoint."""
    checkpoint = {**subject.checkpoint, "sha256": weights_sha256(subject.classifier.network)}
    plain: dict[str, Any] = to_plain({**subject.configuration, "evaluation": options, "checkpoint": checkpoint})
    plain["evaluation"].pop("explainers")  # a record is by one explainer, and earlier records do not have the field
    return plain


def weights_sha256(network: torch.nn.Module) -> str:
    """The SHA-256 of all parameters and buffers: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        # Bytes, on the CPU: the same weights have one digest on every device and in every memory layout.
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def command_line() -> str:
    """The command that is running, as for a shell; empty unless it is contrex's own."""
    program = Path(sys.argv[0])
    is_own = program.stem == "contrex" or program.parts[-2:] == ("contrex", "__main__.py")
    return shlex.join(["contrex", *sys.argv[1:]]) if is_own else ""


def versions() -> dict[str, str]:
    """The versions of contrex, Python, torch and torchvision, and the platform."""
    import torchvision

    return {
        "contrex": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
    }
