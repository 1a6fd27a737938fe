"""The recipe: the settings of one whole run, made of all others."""

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
    """What a recipe repeats of a paper. It does not change the run."""

    paper: str
    """The paper, by its name in `contrex.recipes.tables.SOURCES`."""
    tables: tuple[str, ...]
    """The tables that have numbers of these runs."""
    method: str = ""
    """The name of the method among the rows that it is compared with; empty if ways of measuring are compared."""
    experiment: str = ""
    """The name that all these rows share."""
    trials: int = 1
    """How many runs the paper averages."""
    open_points: tuple[str, ...] = ()
    """What the paper leaves open, each with what the recipe chooses in brackets."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one whole run."""

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
    """What the recipe repeats of a paper. It is no option of the command line."""

    def __post_init__(self) -> None:
        if self.evaluation.task not in (None, "multiclass"):
            raise ArgumentError(
                f"`evaluation.task` {self.evaluation.task} is not for training, which minimises the cross-entropy of a "
                "softmax: leave it out."
            )


def run_name(recipe: Recipe) -> str:
    """The name of a run of `recipe`: the recipe's name and the seed."""
    return f"{recipe.name}-seed{recipe.training.seed}"
