"""One whole run, made of the other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from contrex.errors import ArgumentError
from contrex.settings.data import Data
from contrex.settings.evaluation import Evaluation
from contrex.settings.labelled import Labelled
from contrex.settings.method import Method
from contrex.settings.model import Model
from contrex.settings.training import Augmentation, Optimizer, Schedule, Training


@dataclass(frozen=True)
class Reference:
    """The runs of a paper that a recipe repeats; it makes no run another one."""

    paper: str
    """As `contrex.recipes.tables.SOURCES` calls it."""
    tables: tuple[str, ...]
    """The tables that have numbers of it."""
    method: str = ""
    """What sets it apart from the rows that it is compared with; empty where the paper compares ways of measuring."""
    experiment: str = ""
    """What these rows have in common."""
    trials: int = 1
    """How many runs the paper averages."""
    open_points: tuple[str, ...] = ()
    """What the paper leaves open, and what the recipe chooses (in brackets)."""


@dataclass(frozen=True)
class Recipe:
    """One whole run."""

    name: str
    data: Data
    model: Model
    method: Method
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    labelled: Labelled = Labelled()
    reference: Annotated[Reference | None, tyro.conf.Suppress, tyro.conf.Fixed] = None
    """What it repeats; no option of the command line."""

    def __post_init__(self) -> None:
        if self.evaluation.task not in (None, "multiclass"):
            raise ArgumentError(
                f"`evaluation.task` {self.evaluation.task} is none that training gives, which minimises the "
                "cross-entropy of a softmax: leave it out."
            )


def run_name(recipe: Recipe) -> str:
    """What a run of `recipe` is called: its name and its seed."""
    return f"{recipe.name}-seed{recipe.training.seed}"
