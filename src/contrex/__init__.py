"""contrex: contrastive explanations of image classifiers.

    explainer = contrex.GradCAM(model)                   # any classifier; the layer is found, or layer="layer3"
    why = explainer(images)                              # Explanation(heatmap [N,h,w], logits [N,K], target [N])
    why_not = explainer(images, contrast="weighted")     # why this class and not the others
    rather = explainer(images, target=cat, contrast=dog) # why cat rather than dog

Names are loaded when they are first used, so that `import contrex` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from contrex._version import __version__

if TYPE_CHECKING:
    from contrex import data, evaluation, explain, losses, methods, metrics, models, ops, recipes, report, training
    from contrex.explain import (
        EXPLAINERS,
        LRP,
        RISE,
        AttentionRollout,
        Captum,
        ContrastiveExcitationBackprop,
        Deconvnet,
        ExcitationBackprop,
        Explainer,
        Explanation,
        FullGrad,
        GradCAM,
        Gradient,
        GradientAttentionRollout,
        GradientTimesInput,
        GuidedBackprop,
        HiResCAM,
        IntegratedGradients,
        Occlusion,
        SmoothGrad,
    )

_EXPLAIN = (
    "ExcitationBackprop",
    "ContrastiveExcitationBackprop",
    "LRP",
    "AttentionRollout",
    "GradientAttentionRollout",
    "EXPLAINERS",
    "Explainer",
    "Explanation",
    "GradCAM",
    "Gradient",
    "HiResCAM",
    "GradientTimesInput",
    "SmoothGrad",
    "IntegratedGradients",
    "GuidedBackprop",
    "Deconvnet",
    "FullGrad",
    "RISE",
    "Occlusion",
    "Captum",
)
_PACKAGES = (
    "data",
    "evaluation",
    "explain",
    "losses",
    "methods",
    "metrics",
    "models",
    "ops",
    "recipes",
    "report",
    "training",
)

__all__ = [
    "EXPLAINERS",
    "LRP",
    "RISE",
    "AttentionRollout",
    "Captum",
    "ContrastiveExcitationBackprop",
    "Deconvnet",
    "ExcitationBackprop",
    "Explainer",
    "Explanation",
    "FullGrad",
    "GradCAM",
    "Gradient",
    "GradientAttentionRollout",
    "GradientTimesInput",
    "GuidedBackprop",
    "HiResCAM",
    "IntegratedGradients",
    "Occlusion",
    "SmoothGrad",
    "__version__",
    "data",
    "evaluation",
    "explain",
    "losses",
    "methods",
    "metrics",
    "models",
    "ops",
    "recipes",
    "report",
    "training",
]


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"contrex.{name}")
    if name in _EXPLAIN:
        return getattr(importlib.import_module("contrex.explain"), name)
    raise AttributeError(f"module 'contrex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
