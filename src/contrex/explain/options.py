"""The options of explainers: what their constructors take, and what each was made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor, nn

from contrex.models.classes import Names

if TYPE_CHECKING:
    from contrex.explain.explainer import Explainer


class About(TypedDict, total=False):
    """What every explainer can be told about its model: keywords that all constructors hand on."""

    names: Names | None
    """The names of its classes, one for each, or `"imagenet"`."""
    output: Callable[[Any], Tensor] | None
    """What finds the logits [N,K] in that which the model returns, where contrex cannot tell."""
    augment: str | None
    """Changed copies of each image whose maps are averaged: "flip, scale(0.75, 1.25), times(0.9, 1.1)"."""
    fuse: str | None
    """Layers whose maps become one: "mean(layer3, layer4)"; also `max`, `product` and `layer_cam`."""


NO_OPTIONS = frozenset({"reshape", *About.__annotations__})
"""Parameters that are no options of one explainer: functions, what tells about the model, and options of all."""


def signature(kind: type[Explainer]) -> Sequence[inspect.Parameter]:
    """The parameters of a constructor."""
    return list(inspect.signature(kind).parameters.values())


def parameters(kind: type[Explainer]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor that a text can give: keywords, but for functions and what tells of the model."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {one.name: one for one in signature(kind)[1:] if one.kind in named and one.name not in NO_OPTIONS}


def default_options(kind: type[Explainer]) -> dict[str, Any]:
    """The options of a class that a text can give, with their defaults."""
    return {name: one.default for name, one in parameters(kind).items()}


def made_with(explainer: Explainer) -> dict[str, Any]:
    """The options, without layers, that an explainer was made with: those that it keeps as attributes (`_steps`)."""
    kept = {name: getattr(explainer, f"_{name}", inspect.Parameter.empty) for name in parameters(type(explainer))}
    return {
        name: plain(value)
        for name, value in kept.items()
        if value is not inspect.Parameter.empty and not inspect.isroutine(value) and "layer" not in name
    }


def in_words(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A name with the options that differ from their defaults: "rise(num_masks=500)"."""
    told = [f"{key}={value!r}" for key, value in options.items() if key not in defaults or value != defaults[key]]
    return f"{name}({', '.join(told)})" if told else name


def plain(value: object) -> object:
    """An option as a record can hold it: numbers, texts and lists of them; a tensor as its values, if they are few."""
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 16 else f"tensor {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return tuple(plain(one) for one in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return type(value).__name__ if isinstance(value, nn.Module) else getattr(value, "__name__", repr(value))
