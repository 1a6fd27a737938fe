"""Explainers by name: contrex's own, and a user's from a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from torch import nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.adaptors.captum import Captum
from contrex.explain.explainer import Explainer, LayerExplainer


def explainer_class(name: str) -> type[Explainer]:
    """The explainer registered as `name`, or the class that `FILE.py:CLASS` or `MODULE:CLASS` names; `captum:CLASS` is
    `Captum`.

    Raises:
        UnknownNameError: there is none of that name.
        ArgumentError: the file or module cannot be loaded, or holds no such explainer.
    """
    from contrex.explain import EXPLAINERS

    source, colon, attribute = name.rpartition(":")
    if source == "captum":
        return Captum
    if not colon:
        if name not in EXPLAINERS:
            raise unknown_name("`explainer`", name, EXPLAINERS)
        return EXPLAINERS[name]
    found = getattr(_module(source), attribute, None)
    if not isinstance(found, type) or not issubclass(found, Explainer):
        raise ArgumentError(
            f"`explainer` {name!r}: {source} has no subclass of contrex.Explainer called {attribute!r}."
        )
    return found


def build_explainer(model: nn.Module, name: str, layer: str | None = None) -> Explainer:
    """The explainer called `name` for `model`, at `layer` where it has one."""
    kind = explainer_class(name)
    if kind is Captum:
        attribution = name.removeprefix("captum:")
        return Captum(model, attribution) if layer is None else Captum(model, attribution, layer=layer)
    if layer is None:
        return kind(model)
    if issubclass(kind, LayerExplainer):
        return kind(model, layer)
    raise ArgumentError(f"`layer` {layer!r} means nothing to {name}, which explains the input: drop it.")


def _module(source: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source)
        specification = importlib.util.spec_from_file_location(path.stem, path)
        if specification is None or specification.loader is None:
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise ArgumentError(f"`explainer` cannot be loaded from {source}: {error}") from None
    return module
