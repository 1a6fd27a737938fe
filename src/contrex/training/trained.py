"""What a run has trained: its recipe, its classifier and its class names, from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contrex.methods import training_plan
from contrex.models import Classifier, load_classifier
from contrex.settings import Model, Recipe
from contrex.training.averaging import load_averages
from contrex.training.checkpoint import Checkpoints
from contrex.training.resuming import load_steps
from contrex.training.state import RunState


def load_trained(folder: Path, *, which: str = "last") -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a run folder, from its last or best checkpoint."""
    return trained(Checkpoints(folder).load(which))


def trained(content: Mapping[str, Any]) -> tuple[Recipe, Classifier, tuple[str, ...]]:
    """The recipe, the classifier and the class names of a checkpoint's content; averaged weights where it has them."""
    state = RunState.from_checkpoint(content)
    data, names = state.recipe.data, state.data.classes
    classifier = trained_classifier(state)
    seen = replace(
        classifier,
        image_size=data.image_size,
        short_side=data.short_side,
        names=names,
        interpolation="bilinear",  # as views and evaluations are resized, whatever the library has for its own weights
    )
    return state.recipe, seen, names


def trained_classifier(state: RunState) -> Classifier:
    """The classifier as the run has it now, on the CPU; averaged weights where there are some."""
    classifier = load_classifier(without_file(state.recipe.model), num_classes=len(state.data.classes), is_bare=True)
    plan = training_plan(classifier, state.recipe)
    load_steps(plan, state)
    load_averages(classifier.network, state.averages)
    plan.finish()
    return classifier


def saved_recipe(folder: Path) -> Recipe:
    """The recipe that the last checkpoint of a run folder was trained with."""
    return RunState.from_checkpoint(Checkpoints(folder).load()).recipe


def without_file(model: Model) -> Model:
    """The same network without the weights file that its run started from: the checkpoint has what became of it."""
    return replace(model, weights=None, layout="plain", fresh=())
