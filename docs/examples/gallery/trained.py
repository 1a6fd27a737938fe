"""The networks of the gallery: those of `make quickstart`, trained once and kept in docs/_build/networks."""

import shutil
from functools import cache
from pathlib import Path

from rich.console import Console

from contrex.data import image_set
from contrex.errors import CheckpointError
from contrex.models import Classifier
from contrex.recipes import recipe_named
from contrex.training import load_trained, train

DOCS = next(folder for folder in Path(__file__).resolve().parents if folder.name == "docs")
SEVEN_AND_THREE = DOCS / "pictures" / "seven_and_three.png"


@cache
def run_folder(name: str = "digits_cgc") -> Path:
    """The folder of a recipe's run; training takes about two minutes the first time."""
    folder, quiet = DOCS / "_build" / "networks" / name, Console(quiet=True)
    try:
        train(recipe_named(name), folder, resume=True, console=quiet)
    except CheckpointError:  # it was trained when the recipe was another
        shutil.rmtree(folder)
        train(recipe_named(name), folder, console=quiet)
    return folder


@cache
def classifier(name: str = "digits_cgc") -> Classifier:
    """The trained network of a recipe, with the names of its classes."""
    return load_trained(run_folder(name))[1]


@cache
def unseen(name: str = "digits_cgc"):
    """The test images of a recipe, which know their labels and boxes."""
    return image_set(recipe_named(name).data, "test")


if __name__ == "__main__":
    for one in ("digits_cross_entropy", "digits_cgc"):
        classifier(one)
