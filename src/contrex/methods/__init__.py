"""Training objectives: one module each, `forward(batch) -> StepOutput(loss, logs)`."""

from __future__ import annotations

from contrex.methods.cgc import CGCNoNegativesStep, CGCStep
from contrex.methods.cross_entropy import CrossEntropyStep
from contrex.methods.step import Step, StepOutput
from contrex.models import Classifier
from contrex.settings import CGC, CGCNoNegatives, CrossEntropy, Method

METHODS = {"cross_entropy": CrossEntropy, "cgc": CGC, "cgc_no_negatives": CGCNoNegatives}
"""Settings by method name."""

_STEPS = {CrossEntropy: CrossEntropyStep, CGC: CGCStep, CGCNoNegatives: CGCNoNegativesStep}


def training_step(classifier: Classifier, settings: Method) -> Step:
    """The step that `settings` describe, around `classifier`."""
    step: Step = _STEPS[type(settings)](classifier, settings)
    return step


__all__ = ["METHODS", "CGCNoNegativesStep", "CGCStep", "CrossEntropyStep", "Step", "StepOutput", "training_step"]
