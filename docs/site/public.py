"""The public names of contrex: which packages have some, and which page has each."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[2] / "src" / "contrex"

FIRST = ("explain", "metrics", "losses", "methods", "training", "models", "data", "recipes", "settings")
"""The packages in the order in which one meets them; others follow."""


@cache
def packages() -> tuple[ModuleType, ...]:
    """`contrex` and its packages with public names."""
    files = SOURCE.glob("*/__init__.py")
    found = {file.parent.name for file in files if "__all__" in file.read_text(encoding="utf-8")}
    names = ["contrex", *(f"contrex.{name}" for name in (*FIRST, *sorted(found.difference(FIRST))))]
    return tuple(map(importlib.import_module, names))


def own_names(package: ModuleType) -> list[str]:
    """The public names that the page of a package has; of `contrex` those that no other package has."""
    return ["load", "why"] if package.__name__ == "contrex" else list(package.__all__)


@cache
def full_names() -> dict[str, str]:
    """The full name of each public name that only one package has."""
    found: dict[str, list[str]] = {}
    for package in packages():
        for name in own_names(package):
            found.setdefault(name, []).append(f"{package.__name__}.{name}")
    return {name: full for name, (full, *others) in found.items() if not others}
