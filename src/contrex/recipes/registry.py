"""The recipes of the package: the functions with the decorator `@recipe`, by the names of their recipes."""

from __future__ import annotations

from collections.abc import Callable

from contrex.errors import ArgumentError
from contrex.settings import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {}
"""The functions by name. The modules of the package put theirs in when they are imported."""


def recipe(make: Callable[[], Recipe]) -> Callable[[], Recipe]:
    """Add a function that returns a recipe to `RECIPES`.

    Raises:
        ArgumentError: there already is a recipe of this name.
    """
    name = make().name
    if name in RECIPES:
        raise ArgumentError(f"there are two recipes called {name!r}: give one of them another `name`.")
    RECIPES[name] = make
    return make
