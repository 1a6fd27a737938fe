"""Explainers by name, with their options: contrex's own, those of installed packages, a user's from a file."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain import combined
from contrex.explain.adaptors.captum import Captum
from contrex.explain.explainer import Explainer, LayerExplainer
from contrex.explain.options import About, default_options, parameters, signature
from contrex.models.classifier import Classifier
from contrex.outside import find
from contrex.settings.combination import GENERAL_OPTIONS, read_augment, read_fuse
from contrex.settings.explainer import ExplainerText, read_explainer

_CAPTUM = "captum:"


def explainer_class(text: str) -> type[Explainer]:
    """Find the class that a text names, whatever its options (`contrex.settings.explainer`): the explainer of that name
    in contrex or in an installed package (entry points `contrex.explainers`), or `FILE.py:CLASS`, `MODULE:CLASS`;
    `captum:CLASS` is `Captum`.

    Raises:
        UnknownNameError: there is none of that name.
        ArgumentError: the file or module cannot be loaded, or holds no such explainer.
    """
    from contrex.explain import EXPLAINERS

    name = read_explainer(text).name
    if name.startswith(_CAPTUM):
        return Captum
    found = find(name, "`explainer`", EXPLAINERS, "explainers")
    if not isinstance(found, type) or not issubclass(found, Explainer):
        raise ArgumentError(f"`explainer` {name!r} is no subclass of contrex.Explainer: name a class that is one.")
    return found


def build_explainer(model: nn.Module | Classifier, text: str, layer: str | None = None) -> Explainer:
    """Make the explainer that a text names, for `model`; `layer` is for those that have one.

    Raises:
        UnknownNameError: there is no such explainer, or it has no such option.
        ArgumentError: an option has a value of a wrong type, or one that the explainer refuses; or a layer was given to
            an explainer of the pixels, or twice.
    """
    make: Callable[..., Explainer] = explainer_class(text)
    options = _options_with_layer(text, layer)
    general = {name: options.pop(name, None) for name in GENERAL_OPTIONS}
    made = make(model, *_leading(read_explainer(text)), **options)
    combined.tell(made, **general)  # here, as constructors from outside need not know these options
    return made


def check_explainer(text: str, layer: str | None = None) -> None:
    """Refuse a text that names no explainer, or options that it has not, before there is a model to explain.

    Raises:
        UnknownNameError: there is no such explainer, or it has no such option.
        ArgumentError: an option has a value of a wrong type, or one that the explainer refuses; or a layer was given to
            an explainer of the pixels, or twice.
    """
    kind, options = explainer_class(text), _options_with_layer(text, layer)
    if kind.__module__.partition(".")[0] == "contrex":  # others may look at their model
        make: Callable[..., Explainer] = kind
        of_any_model = {
            name: one for name, one in options.items() if "layer" not in name and name not in GENERAL_OPTIONS
        }
        make(nn.Linear(1, 2), *_leading(read_explainer(text)), **of_any_model)


def checked_options(text: str) -> dict[str, Any]:
    """The options that a text gives, as the constructor takes them: numbers in a list become a tensor where it takes
    tensors. Classes that take any keywords, as `Captum` does, check them themselves.

    Raises:
        UnknownNameError: the constructor has no such option.
        ArgumentError: a value has a type that it does not take.
    """
    asked, kind = read_explainer(text), explainer_class(text)
    known, hints = parameters(kind), _hints(kind)
    takes_any = any(one.kind is one.VAR_KEYWORD and hints.get(one.name) != Unpack[About] for one in signature(kind))
    options = {}
    for name, value in asked.options.items():
        if name in GENERAL_OPTIONS:
            options[name] = _checked_general(name, value, kind)
            continue
        if name not in known and not takes_any:
            if not known:
                raise ArgumentError(f"{asked.name} has no options, got `{name}` ({text}): leave it out.")
            raise unknown_name(f"option of {asked.name}", name, [*known, *GENERAL_OPTIONS])
        if name in hints and not _fits(value, hints[name]):
            raise ArgumentError(f"option `{name}` of {asked.name} must be {_in_words(hints[name])}; got {value!r}.")
        options[name] = _as_tensor(value) if name in hints and Tensor in _alternatives(hints[name]) else value
    return options


def _checked_general(name: str, value: object, kind: type[Explainer]) -> object:
    """The value of an option of any explainer, if it can be read and means something to this one."""
    if value is None:
        return None
    found = {"augment": read_augment, "fuse": read_fuse}[name](value)
    if name == "fuse" and not issubclass(kind, LayerExplainer):
        raise ArgumentError(f"`fuse` '{found}' means nothing to {kind.name}, which explains no layer: drop it.")
    return value


def options_in_words(text: str) -> str:
    """All options of the explainer that a text names, given or by default, without its layer: "steps=32, seed=0"."""
    options = {**default_options(explainer_class(text)), **read_explainer(text).options}
    return ", ".join(f"{name}={value!r}" for name, value in options.items() if "layer" not in name)


def _options_with_layer(text: str, layer: str | None) -> dict[str, Any]:
    """The checked options of a text, and the layer that was named beside it."""
    options = checked_options(text)
    if layer is not None:
        _check_layer(text, layer)
        options["layer"] = layer
    return options


def _check_layer(text: str, layer: str) -> None:
    asked = read_explainer(text)
    if "layer" in asked.options:
        raise ArgumentError(f"`layer` {layer!r} and `explainer` {text} both name a layer: give one of them.")
    if not issubclass(explainer_class(text), (LayerExplainer, Captum)):
        raise ArgumentError(f"`layer` {layer!r} means nothing to {asked.name}, which explains the input: drop it.")


def _leading(asked: ExplainerText) -> Sequence[str]:
    """What the constructor gets behind the model: the name of captum's class."""
    return [asked.name.removeprefix(_CAPTUM)] if asked.name.startswith(_CAPTUM) else []


def _hints(kind: type[Explainer]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(kind.__init__)
    except (NameError, TypeError):  # a user's own that Python cannot resolve: its constructor checks
        return {}


def _alternatives(hint: Any) -> Sequence[Any]:
    """The members of a union, or the one type there is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [one for part in typing.get_args(hint) for one in _alternatives(part)]
    return [hint]


def _fits(value: object, hint: Any) -> bool:
    """Whether a literal is of the type that a hint asks for."""
    return any(_fits_one(value, one) for one in _alternatives(hint))


def _fits_one(value: object, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in parts
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint is Tensor:
        return isinstance(value, (tuple, list)) and all(_fits(one, float) or _fits_one(one, Tensor) for one in value)
    if hint in (bool, type(None)):
        return isinstance(value, hint)
    accepted = {float: (float, int), int: (int,), str: (str,)}.get(hint, ())
    return isinstance(value, accepted) and not isinstance(value, bool)


def _in_words(hint: Any) -> str:
    """What a hint takes, in words: "a number or None"."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", type(None): "None"}
    words[Tensor] = "numbers in a list"
    told = []
    for one in _alternatives(hint):
        if typing.get_origin(one) is typing.Literal:
            told += [repr(choice) for choice in typing.get_args(one)]
        elif typing.get_origin(one) is tuple:
            told.append(f"({', '.join(_in_words(part) for part in typing.get_args(one) if part is not Ellipsis)})")
        elif one in words:
            told.append(words[one])
    return " or ".join(dict.fromkeys(told)) or "something that no text can give"


def _as_tensor(value: object) -> object:
    return torch.tensor(value) if isinstance(value, (tuple, list)) else value
