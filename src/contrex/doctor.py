"""Telling what this machine can do and what is wrong with it, even where torch cannot be imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contrex._version import __version__
from contrex.importing import uncollected


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, what it is, and whether that is fine."""

    subject: str
    text: str
    ok: bool = True


def examine() -> list[Finding]:
    """Check everything that is worth knowing before a long run."""
    checks: list[Callable[[], Finding]] = [_python, _contrex, _torch, _torchvision_pair, _device, _libraries, _disk]
    with uncollected():
        return [check() for check in checks]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    advice = "" if ok else ": contrex needs 3.11 or newer"
    return Finding("Python", f"{platform.python_version()} on {platform.platform()}{advice}", ok)


def _contrex() -> Finding:
    return Finding("contrex", f"{__version__} in {Path(__file__).parent}")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", f"cannot be imported ({error}): pip install torch torchvision", ok=False)
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")


def _torchvision_pair() -> Finding:
    """Check that torch and torchvision were built for each other: if not, they import, but the first operator fails."""
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]]), torch.tensor([0.9, 0.8]), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        text = f"does not work with this torch ({reason}): install both in one command, pip install torch torchvision"
        return Finding("torchvision", text, ok=False)
    return Finding("torchvision", f"{torchvision.__version__}, its operators run with this torch", kept.tolist() == [0])


def _device() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("device", "unknown, torch is missing", ok=False)
    if not torch.cuda.is_available():
        built = "; this torch was built without CUDA" if torch.version.cuda is None else ""
        return Finding("device", f"CPU only: no usable CUDA device{built}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("device", f"CUDA {torch.version.cuda}: {', '.join(names)}")


def _libraries() -> Finding:
    needed = (
        *("timm", "numpy", "scipy", "PIL", "safetensors", "sklearn"),
        *("matplotlib", "jinja2", "markupsafe", "rich", "tyro"),
    )
    broken = []
    for name in needed:
        try:
            importlib.import_module(name)
        except Exception as error:
            broken.append(f"{name} ({type(error).__name__}: {error})")
    if broken:
        return Finding("libraries", f"cannot be imported: {'; '.join(broken)}", ok=False)
    return Finding("libraries", f"{', '.join(needed)} can be imported")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", f"{free:.1f} GiB free here" + ("" if free > 1 else ": too little for checkpoints"), free > 1)
