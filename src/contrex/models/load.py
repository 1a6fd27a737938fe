"""Classifiers by name: those of libraries and the built-in network, with weights from a file or, where they are asked
for, the library's own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from contrex.errors import ArgumentError, ContrexError, NormalisationWarning, WeightsError, unknown_name, warn
from contrex.models.classifier import Classifier, channels
from contrex.models.layouts import encoder_weights
from contrex.models.libraries import Library
from contrex.models.named import library_of
from contrex.models.pooling import with_pooling
from contrex.models.split import check_classifier
from contrex.models.stem import cifar_stem
from contrex.models.undrawn import Undrawn
from contrex.models.weights import load_weights, read_state_dict
from contrex.settings import IMAGENET_MEAN, IMAGENET_STD, Model, Stem


def load_classifier(
    settings: Model, *, num_classes: int | None = None, is_bare: bool = False, draws: bool = False
) -> Classifier:
    """Build the network, load its weights, and account for every key.

    `num_classes` is the data set's; `settings.num_classes` wins over it, and without either the weights tell. With
    `settings.pretrained` the weights are the library's own, or in the file `settings.weights`; the classifier then has
    the mean, std, size, interpolation and names that the library says of them. `is_bare` leaves all weights out, for
    those that a run has trained. `draws` draws the random weights that those of a file replace, too, so that what a run
    draws after them does not depend on the file.

    Raises:
        UnknownNameError: no such library, architecture or layout.
        ArgumentError: the network has no classifier, or no global average pooling where another is asked for, or its
            library is not installed.
        WeightsError: the library cannot get its weights; the file is missing, unreadable or of another layout; a key is
            missing or left over; or a shape differs.
    """
    count = settings.num_classes if settings.num_classes is not None else num_classes
    left_out: tuple[str, ...] = ()
    if settings.weights is not None and not is_bare:
        network, left_out = _from_file(settings, count, draws=draws)
    elif settings.pretrained and not is_bare:
        network = _pretrained(settings, count)
    else:
        _check_weights_are_there(settings, is_bare=is_bare)
        network = _built(settings, count)
    check_classifier(network)
    return Classifier(network, left_out=left_out, **_said(settings, network, is_bare=is_bare))


def build_network(
    name: str, options: Mapping[str, str], *, num_classes: int | None = None, stem: Stem = "built-in"
) -> nn.Module:
    """The network `LIBRARY:ARCHITECTURE` with random weights; option texts are read as Python literals where they are.

    `stem="cifar"` gives a ResNet the first layers of small images (`cifar_stem`).

    >>> build_network("contrex:convnet", {"pointwise": "64"}, num_classes=3).fc
    Linear(in_features=64, out_features=3, bias=True)
    """
    if stem not in STEMS:
        raise unknown_name("`model.stem`", stem, STEMS)
    return _built(Model(name, dict(options), stem), num_classes)


STEMS: dict[str, Callable[[nn.Module], nn.Module]] = {"built-in": lambda network: network, "cifar": cifar_stem}


def literal(text: str) -> Any:
    """An option's text as a Python literal where it is one; nothing is evaluated.

    >>> literal("(3, 4)"), literal("same"), literal("print()")
    ((3, 4), 'same', 'print()')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _built(settings: Model, count: int | None) -> nn.Module:
    """The network with random weights."""
    library, architecture = library_of(settings.name)
    arguments = _arguments(settings, library)
    if count is not None:
        arguments["num_classes"] = count
    make = partial(library.build, architecture, arguments, like_pretrained=settings.pretrained)
    return with_pooling(STEMS[settings.stem](_made(settings, make)), settings.pooling, settings.pooling_temperature)


def _from_file(settings: Model, count: int | None, *, draws: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with the weights of a file, and the modules of the file that are left out."""
    assert settings.weights is not None
    state, left_out = encoder_weights(read_state_dict(settings.weights, settings.layout), settings.layout)
    with Undrawn() if not (draws or settings.fresh) else nullcontext():
        network = _built(settings, count)
        if count is None and (found := _num_classes(network, state)) is not None:
            network = _built(settings, found)
    if settings.pretrained:
        whole, state = state, library_of(settings.name)[0].of_network(state, network)
        left_out += tuple(dict.fromkeys(key.partition(".")[0] for key in whole if key not in state))
    load_weights(network, settings.weights, fresh=settings.fresh, state=state)
    return network, left_out


def _pretrained(settings: Model, count: int | None) -> nn.Module:
    """The network with its library's own weights; parts that are to be trained anew are those in `fresh` alone."""
    library, architecture = library_of(settings.name)
    try:
        whole = _made(settings, partial(library.pretrained, architecture, _arguments(settings, library)))
    except ContrexError:
        raise
    except Exception as error:  # no network, no such file, another hash: each library has its own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"`model.pretrained`: {library.title} cannot get the weights of {settings.name}: {reason} It looks for "
            f"them in {library.cache(architecture)}. Without a network, put them there, or name a file that has them: "
            "--pretrained --model.weights FILE."
        ) from error
    if count is None and not settings.fresh and settings.stem == "built-in":
        return with_pooling(whole, settings.pooling, settings.pooling_temperature)
    network = _built(settings, count)
    load_weights(network, None, fresh=settings.fresh, state=whole.state_dict(), source=f"`model.name` {settings.name}")
    return network


def _made(settings: Model, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except TypeError as error:
        raise ArgumentError(f"`model.options` {settings.options} do not fit {settings.name}: {error}") from None


def _arguments(settings: Model, library: Library) -> dict[str, Any]:
    """The arguments that a library's builder gets."""
    words = {"classes": settings.classes} if library.reads_words and settings.classes else {}
    return {**{key: literal(text) for key, text in settings.options.items()}, **words}


def _check_weights_are_there(settings: Model, *, is_bare: bool) -> None:
    if not is_bare and (settings.fresh or settings.layout != "plain"):
        name = "fresh" if settings.fresh else "layout"
        value = getattr(settings, name)
        raise ArgumentError(f"`{name}` {value} means something only with `weights`: pass a file or drop it.")


def _said(settings: Model, network: nn.Module, *, is_bare: bool) -> dict[str, Any]:
    """How a network sees pictures: as the settings say, or else what is known of its weights, or ImageNet's numbers."""
    library, architecture = library_of(settings.name)
    known = library.told(architecture, network, is_pretrained=settings.pretrained)
    for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        typed = getattr(settings, name)
        asked = None if typed is None else channels(typed, f"model.{name}")
        own = known.get(name)
        if (
            not is_bare
            and asked is not None
            and own is not None
            and max(abs(a - b) for a, b in zip(asked, own, strict=True)) > 1e-3
        ):
            warn(
                f"`model.{name}` {asked} is not what {settings.name} says of its weights, {own}: leave it out, unless "
                "these weights were trained with it.",
                NormalisationWarning,
            )
        known[name] = asked or own or usual
    if settings.classes:
        known["names"] = settings.classes
    return known


def _num_classes(network: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The classes of a file that differs from the network in nothing but the length of its classifier's tensors."""
    own = network.state_dict()
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    fits = bool(other) and all(own[key].shape[1:] == state[key].shape[1:] for key in other)
    here, there = {len(own[key]) for key in other}, {len(state[key]) for key in other}
    modules = {key.rpartition(".")[0] for key in other}
    return there.pop() if fits and len(here) == len(there) == len(modules) == 1 else None
