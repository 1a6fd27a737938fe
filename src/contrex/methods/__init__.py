"""Training objectives: one module each, `forward(batch) -> StepOutput(loss, logs)`, and the plan of their phases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from contrex.methods.cgc import CGCNoNegativesStep, CGCStep
from contrex.methods.cross_entropy import CrossEntropyStep
from contrex.methods.excon import ExConStep
from contrex.methods.gcc import GCCStep
from contrex.methods.moving import frozen, with_rates
from contrex.methods.phase import Phase, Plan, one_phase
from contrex.methods.step import Shown, Step, StepOutput
from contrex.methods.supcon import ClassifierStep, SupConStep, supcon_plan
from contrex.models import Classifier
from contrex.settings import CGC, GCC, CGCNoNegatives, CrossEntropy, ExCon, Method, Recipe, SupCon

METHODS: dict[str, Callable[..., Method]] = {
    "cross_entropy": CrossEntropy,
    "cgc": CGC,
    "cgc_no_negatives": CGCNoNegatives,
    "gcc": GCC,
    "supcon": SupCon,
    "supcon_ori": partial(SupCon, order="encoder-first"),
    "simclr": partial(SupCon, order="encoder-first", labels=False),
    "excon": ExCon,
    "exconb": partial(ExCon, background=True),
}
"""What makes the settings of each method, by its name in the papers."""

_STEPS: dict[type, Callable[[Classifier, Any], Step]] = {
    CrossEntropy: CrossEntropyStep,
    CGC: CGCStep,
    CGCNoNegatives: CGCNoNegativesStep,
    GCC: GCCStep,
    SupCon: SupConStep,
    ExCon: ExConStep,
}


def training_step(classifier: Classifier, settings: Method) -> Step:
    """The step that `settings` describe, around `classifier`; of a method of two phases, the encoder's."""
    return _STEPS[type(settings)](classifier, settings)


def training_plan(classifier: Classifier, recipe: Recipe) -> Plan:
    """The phases of a run, and which of them each epoch has."""
    step = training_step(classifier, recipe.method)
    if isinstance(step, SupConStep):
        plan = supcon_plan(step, classifier, recipe, step.settings)
    else:
        plan = one_phase(step, recipe)
    return with_rates(frozen(plan, classifier.network, recipe.training.freeze), classifier.network)


__all__ = [
    "METHODS",
    "CGCNoNegativesStep",
    "CGCStep",
    "ClassifierStep",
    "CrossEntropyStep",
    "ExConStep",
    "GCCStep",
    "Phase",
    "Plan",
    "Shown",
    "Step",
    "StepOutput",
    "SupConStep",
    "training_plan",
    "training_step",
]
