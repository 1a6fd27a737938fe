"""The recipes of the package: each function with the mark `@recipe`, by the name of what it returns."""

from __future__ import annotations

from collections.abc import Callable

from contrex.errors import ArgumentError
from contrex.settings import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {}
"""Filled when the modules of the package are loaded, in their order."""


def recipe(make: Callable[[], Recipe]) -> Callable[[], Recipe]:
    """Put a function that returns a recipe among `RECIPES`.

    Raises:
        ArgumentError: there is a recipe of this name.
    """
    name = make().name
    if name in RECIPES:
        raise ArgumentError(f"there are two recipes called {name!r}: give one of them another `name`.")
    RECIPES[name] = make
    return make
