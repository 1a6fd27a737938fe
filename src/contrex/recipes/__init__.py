"""Recipes: functions that return one frozen `Recipe`, a whole run.

`contrex train NAME` runs one, and every field can be overridden on the command line. A variant calls its parent and
changes a field or two. There is a file for each paper or data set; a new recipe is one function with `@recipe` in one
of them. `contrex train` also takes a function from outside of contrex: as `FILE.py:NAME`, or by the name that an
installed package gives it in its entry points `contrex.recipes`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from contrex.errors import ArgumentError, RecordError
from contrex.outside import find, installed, is_outside
from contrex.recipes.registry import RECIPES, recipe
from contrex.settings import Recipe

_MODULES = (
    "digits",
    "tiny_imagenet",
    "pets",
    "cgc",
    "fine_grained",
    "few_shot",
    "few_labels",
    "contrast",
    "excon",
    "retrofit",
    "rivals",
)
"""The modules with recipes, in the order in which `contrex recipes` lists them."""

for _module in _MODULES:
    importlib.import_module(f"contrex.recipes.{_module}")


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`, or the one that the function `FILE.py:NAME` or `MODULE:NAME` returns.

    Hyphens may stand for underscores.

    Raises:
        UnknownNameError: there is no such recipe.
        ArgumentError: there is no such function, or it returns no recipe.
    """
    made = find(_key(name), "the recipe", RECIPES, "recipes")
    result = made() if callable(made) else made
    if not isinstance(result, Recipe):
        raise ArgumentError(f"the recipe {name!r} is no function that returns a contrex.settings.Recipe.")
    return result


def recipe_from(source: str) -> Recipe:
    """The recipe that `source` names: by name, as in `recipe_named`, or by a run's folder or `recipe.json`.

    A name wins over a folder with the same name: write ./NAME for the folder.

    Raises:
        UnknownNameError, ArgumentError: as `recipe_named`.
        RecordError: the file is not a recipe.
    """
    path = Path(source)
    is_known = is_outside(source) or _key(source) in RECIPES or _key(source) in installed("recipes")
    if is_known or not (path.is_dir() or path.suffix == ".json"):
        return recipe_named(source)
    from contrex.records import from_plain  # needs numpy, which a list of recipes does not

    saved: Recipe = from_plain(_read(path / "recipe.json" if path.is_dir() else path), Recipe, where="recipe")
    return saved


def _key(name: str) -> str:
    return name if is_outside(name) else name.replace("-", "_")


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path} is not a saved recipe: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a saved recipe: {error}.") from None


__all__ = ["RECIPES", "recipe", "recipe_from", "recipe_named"]
