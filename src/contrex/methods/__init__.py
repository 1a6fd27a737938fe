"""Training objectives: one module each, `forward(batch) -> StepOutput(loss, logs)`, and the plan of their phases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from contrex.errors import ArgumentError
from contrex.methods.averaging import Teacher, follow
from contrex.methods.bce_head import BCEHeadStep
from contrex.methods.cgc import CGCNoNegativesStep, CGCStep, ConsistencyStep
from contrex.methods.cross_entropy import CrossEntropyStep
from contrex.methods.energy import EnergyGuidedStep
from contrex.methods.excon import ExConStep
from contrex.methods.gcc import GCCStep
from contrex.methods.moving import frozen, with_rates
from contrex.methods.phase import Phase, Plan, one_phase
from contrex.methods.retrofit import RetrofitStep
from contrex.methods.step import Shown, Step, StepOutput, Wants, step_output, transformed_of, views_of
from contrex.methods.supcon import ClassifierStep, SupConStep
from contrex.models import Classifier
from contrex.settings import Method, Recipe
from contrex.settings import method as settings
from contrex.settings.family import implementation_of

METHODS: dict[str, Callable[..., Method]] = {
    name: partial(kind, **options)
    for kind in vars(settings).values()
    if isinstance(kind, type) and issubclass(kind, Method)
    for name, options in kind.papers_names.items()
}
"""What makes the settings of each of contrex's methods, by its name in the papers, or its own."""


def step_class(kind: type[Method]) -> type[Step]:
    """The step that the settings of `kind` name, `kind.implementation`.

    Raises:
        ArgumentError: they name none, or something else.
    """
    return implementation_of(kind, Step, "contrex.methods.Step")  # type: ignore[type-abstract]


def training_step(classifier: Classifier, settings: Method) -> Step:
    """The step that `settings` describe, around `classifier`; of a method of two phases, the encoder's."""
    make: Callable[[Classifier, Method], Step] = step_class(type(settings))
    return make(classifier, settings)


def training_plan(classifier: Classifier, recipe: Recipe) -> Plan:
    """The phases of a run, and which of them each epoch has.

    Raises:
        ArgumentError: the step, or what of it is not frozen, has nothing to train.
    """
    plan = training_step(classifier, recipe.method).plan(recipe)
    for phase in plan.phases:
        if not phase.parameters:
            name = type(phase.step).__name__
            raise ArgumentError(f"{name} has nothing to train: `trained_parameters()` are those that are not frozen.")
    return with_rates(frozen(plan, classifier.network, recipe.training.freeze), classifier.network)


__all__ = [
    "METHODS",
    "BCEHeadStep",
    "CGCNoNegativesStep",
    "CGCStep",
    "ClassifierStep",
    "ConsistencyStep",
    "CrossEntropyStep",
    "EnergyGuidedStep",
    "ExConStep",
    "GCCStep",
    "Phase",
    "Plan",
    "RetrofitStep",
    "Shown",
    "Step",
    "StepOutput",
    "SupConStep",
    "Teacher",
    "Wants",
    "follow",
    "one_phase",
    "step_class",
    "step_output",
    "training_plan",
    "training_step",
    "transformed_of",
    "views_of",
]
