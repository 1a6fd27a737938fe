"""Whether the libraries of the extra `serve` are there, asked before anything heavy is loaded."""

from __future__ import annotations

import importlib.util

from contrex.errors import ArgumentError


def check_installed() -> None:
    """Refuse to go on without the libraries of the extra.

    Raises:
        ArgumentError: one is missing.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(f"`serve` needs {' and '.join(missing)}: pip install 'contrex[serve]'.")
