"""contrex: contrastive explanations of image classifiers.

    explainer = contrex.GradCAM(model)                   # any classifier; the layer is found, or layer="layer3"
    why = explainer(images)                              # Explanation(heatmap [N,h,w], logits [N,K], target [N])
    why_not = explainer(images, contrast="weighted")     # why this class and not the others
    rather = explainer(images, target=cat, contrast=dog) # why cat rather than dog
    why = contrex.why("cat.jpg", classifier)             # a file, an image or an array; a notebook shows the picture

Everything of `contrex.explain` is here too. Names are loaded when they are first used, so that `import contrex` costs
next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from contrex._version import __version__ as __version__
from contrex.importing import uncollected as _uncollected

if TYPE_CHECKING:
    from contrex import data as data
    from contrex import evaluation as evaluation
    from contrex import explain as explain
    from contrex import losses as losses
    from contrex import methods as methods
    from contrex import metrics as metrics
    from contrex import models as models
    from contrex import ops as ops
    from contrex import recipes as recipes
    from contrex import report as report
    from contrex import training as training
    from contrex.asking import load as load
    from contrex.asking import why as why
    from contrex.asking import why_not as why_not
    from contrex.explain import *  # noqa: F403

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

_FUNCTIONS = ("load", "why", "why_not")


def __getattr__(name: str) -> object:
    with _uncollected():
        if name in _FUNCTIONS:  # not called like their module: that would take its place here once it is imported
            return getattr(importlib.import_module("contrex.asking"), name)
        if name in _PACKAGES:
            return importlib.import_module(f"contrex.{name}")
        if name[:1].isupper():  # a class or a table; anything else may be a submodule about to be imported
            explain = importlib.import_module("contrex.explain")
            if name in explain.__all__:
                return getattr(explain, name)
    raise AttributeError(f"module 'contrex' has no attribute {name!r}")


def __dir__() -> list[str]:
    explain = importlib.import_module("contrex.explain")
    return sorted([*explain.__all__, *_PACKAGES, "__version__", *_FUNCTIONS])
