"""Explainers: why this class - and, with a contrast, why not the others.

A method is one file with one class; `EXPLAINERS` is the list that the command line and the contract tests run over.
"""

from contrex.explain.explainer import ActivationExplainer, Explainer, InputExplainer, LayerExplainer
from contrex.explain.explanation import ClassExplanations, Explanation
from contrex.explain.grad_cam import GradCAM
from contrex.explain.gradient import Gradient
from contrex.explain.hires_cam import HiResCAM
from contrex.explain.perturbation import PerturbationExplainer

EXPLAINERS: dict[str, type[Explainer]] = {
    "grad_cam": GradCAM,
    "hires_cam": HiResCAM,
    "gradient": Gradient,
}

__all__ = [
    "EXPLAINERS",
    "ActivationExplainer",
    "ClassExplanations",
    "Explainer",
    "Explanation",
    "GradCAM",
    "Gradient",
    "HiResCAM",
    "InputExplainer",
    "LayerExplainer",
    "PerturbationExplainer",
]
