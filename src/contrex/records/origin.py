"""Where a record comes from: the command that is running, and with which versions."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path

from contrex._version import __version__


def command_line() -> str:
    """The command that is running, as for a shell; empty unless it is contrex's own."""
    program = Path(sys.argv[0])
    is_own = program.stem == "contrex" or program.parts[-2:] == ("contrex", "__main__.py")
    return shlex.join(["contrex", *sys.argv[1:]]) if is_own else ""


def versions(*more: str) -> dict[str, str]:
    """The versions of contrex, Python, torch, torchvision and `more` packages, and the platform."""
    import torch
    import torchvision

    return {
        "contrex": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        **{name: importlib.metadata.version(name) for name in more},
        "platform": platform.platform(),
    }
