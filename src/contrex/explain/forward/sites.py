"""What an explainer has looked up about the layers of its model, kept as long as it holds."""

from __future__ import annotations

import contextlib
import math
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from contrex.errors import LayerError, LayerWarning, warn
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.functions import cuts_by_numbers, program
from contrex.explain.forward.observed import Observed
from contrex.explain.forward.survey import Survey, check_pass
from contrex.models import beside
from contrex.models.layers import Layer, Reshape, Site, find_run
from contrex.models.outputs import reading_kind
from contrex.models.reading import Reading

MUCH = 0.1
"""The share of the gradient that may flow past a layer that the user named, without a warning."""

MANY = 1000
"""How much is kept of a model at most."""
Key = tuple[Hashable, torch.Size, Hashable]
"""What was asked for, the size of the images, and what the modules are set to and get beside the images."""
T = TypeVar("T", Site, Reading, tuple[Site, ...])


@dataclass(frozen=True, eq=False)
class _Seen:
    """A layer found by itself, and what of its survey tells whether it is right for images of another size too."""

    site: Site
    reading: Reading
    images: torch.Size
    functions: Sequence[object]
    has_single_cells_behind: bool
    kind: Hashable
    """What of the way in which outputs were read may have decided."""

    def encloses(self, images: Tensor) -> bool:
        """Whether images are nowhere larger than those that were seen."""
        return all(side <= known for side, known in zip(images.shape[2:], self.images[2:], strict=True))

    def scales_to(self, grid: Sequence[int], images: Tensor) -> bool:
        """Whether a grid has more than one cell and is to these images what the known one is to its own, up to one cell
        of rounding: otherwise the network resizes or crops them."""
        sides = zip(grid, self.site.grid, images.shape[2:], self.images[2:], strict=True)
        return math.prod(grid) > 1 and all(abs(n * size - m * side) <= max(size, side) for n, m, side, size in sides)


class Sites:
    """Looks layers up in one pass of the model for each size of images, and again once the model is another one.

    A module that was added or replaced makes another model of it (its weights do not), and so do another mode, another
    flag, name, number or function among a module's attributes, and another hook: some networks then take another way.
    """

    def __init__(self, model: nn.Module, reshape: Reshape | None = None) -> None:
        self._model, self._reshape = model, reshape
        self._found: dict[Key, Site | Reading | tuple[Site, ...]] = {}
        self._modules: Sequence[weakref.ref[nn.Module]] = ()
        self._own_logits: Tensor | None = None
        """Those of the survey that the running call has made, until its pass was compared with them."""
        self._seen: _Seen | None = None
        self._places: Sequence[int] = ()
        self._settings: Hashable = ()
        self._warned: set[str] = set()

    def find(
        self, images: Tensor, layers: Sequence[Layer], *, choose: Callable[[Survey], Site] | None = None
    ) -> list[Site]:
        """The site of each layer for images of this size; None is the layer that `choose` takes.

        Raises:
            LayerError: a layer does not run once, gives no map, or one that can be read in two ways; or none was named
                and none carries the logits.
        """
        self._own_logits = None
        surveys: list[Survey] = []  # all layers are looked up in one pass

        def look_up(layer: Layer) -> Site:
            surveys[:] = surveys or [Survey(self._model, images)]
            (survey,) = surveys
            self._own_logits = survey.seen.logits.detach().clone()  # a copy: nothing of the pass is kept
            if layer is not None:
                return self._named(survey, layer)
            site = choose(survey) if choose else survey.choose(self._reshape)
            if isinstance(site.maps, Reading) and site.maps.is_plain_grid and not _may_cut(survey):
                self._seen = _Seen(
                    site,
                    site.maps,
                    images.shape,
                    survey.seen.functions,
                    survey.seen.has_single_cells_behind(site),
                    reading_kind(),
                )
            return site

        return [self._kept(layer, images, lambda layer=layer: look_up(layer)) for layer in layers]  # type: ignore[misc]

    def entering(self, images: Tensor, layer: nn.Module) -> Site:
        """The site of what a layer gets in place of what it gives; errors as in `find`."""
        key = ("input", layer)
        return self._kept(key, images, lambda: Survey(self._model, images).named(layer, self._reshape, entering=True))

    def find_each(self, images: Tensor) -> Sequence[Site]:
        """The last layers of up to three resolutions that carry the logits, as `Survey.choose_each` finds them."""
        self._own_logits = None

        def look_up() -> tuple[Site, ...]:
            survey = Survey(self._model, images)
            self._own_logits = survey.seen.logits.detach().clone()
            return tuple(survey.choose_each(self._reshape))

        return self._kept("each resolution", images, look_up)

    def run_as_seen(self, images: Tensor, run: Callable[[Site], Pass]) -> Pass | None:
        """`run(site)` at the layer that was found at another size of images, if that is right for this size too.

        It is if the network calls the same functions, so that its graph is the same, none of which cuts by numbers of
        pixels, and no layer behind has a grid now that had none: that can be where images are larger. So a new size
        needs no pass of its own.
        """
        seen, key = self._seen, self._key(None, images)
        if seen is None or key in self._found or seen.kind != reading_kind():
            return None
        if seen.has_single_cells_behind and not seen.encloses(images):
            return None
        # A guess that does not fit is no error: a survey of this size follows.
        with contextlib.suppress(LayerError), program() as functions:
            found = run(replace(seen.site, maps=seen.reading.of_any_size, shape=None))
            (features,) = found.features
            grid = features.maps(features.output.detach()).shape[2:]
            if functions == seen.functions and seen.scales_to(grid, images):
                shape = features.output.shape[1:]
                maps = seen.reading.of_any_size
                self._found[key] = replace(seen.site, maps=maps, grid=(grid[0], grid[1]), shape=shape)
                return found
        return None

    def token_grid(self, images: Tensor, num_tokens: int) -> Reading:
        """The way to read one value for each token, `[N,num_tokens,1]`, as maps `[N,1,h,w]`, or `LayerError`."""
        key = ("tokens", num_tokens)
        return self._kept(key, images, lambda: Observed(self._model, images).token_grid(num_tokens))

    def check_pass(self, run: Pass) -> None:
        """Compare the logits of a pass with those of the survey that came right before it, if one did."""
        own, self._own_logits = self._own_logits, None
        if own is not None:
            check_pass(run.logits, run.images, own, self._model)

    def _kept(self, asked: Hashable, images: Tensor, look_up: Callable[[], T]) -> T:
        key = self._key(asked, images)
        if key not in self._found:
            if len(self._found) >= MANY:  # a network that counts its calls is another one at each
                self._found.clear()
            self._found[key] = look_up()
        return self._found[key]  # type: ignore[return-value]

    def _key(self, asked: Hashable, images: Tensor) -> Key:
        """What is kept of the model as it is now; of any other it is forgotten."""
        modules = _all_modules(self._model)
        if len(modules) != len(self._modules) or any(
            known() is not module for known, module in zip(self._modules, modules, strict=True)
        ):
            self._modules = [weakref.ref(module) for module in modules]
            self._found.clear()
            self._seen = None
        return asked, images.shape[1:], (self._settings_of(modules), beside.kind(), reading_kind())

    def _settings_of(self, modules: Sequence[nn.Module]) -> Hashable:
        """What may decide which way modules take: modes, flags, names, numbers, functions and hooks.

        That is asked at every call, so only where another object stands somewhere are they sorted out again.
        """
        values = _values(modules)
        places = list(map(id, values))  # of those that count none is freed: the settings hold them
        if places != self._places:
            self._places = places
            self._settings = tuple([value for value in values if _decides(value)])
        return self._settings

    def _named(self, survey: Survey, layer: str | nn.Module) -> Site:
        module, number = find_run(self._model, layer)
        site = survey.named(module, self._reshape, number)
        if site.past > MUCH and site.name not in self._warned:
            self._warned.add(site.name)
            warn(
                f"{site.past:.0%} of the gradient from the logits to the pixels flows past `layer` {site.name!r} of "
                f"{type(self._model).__name__}: its map shows a part of the explanation. With layer=None the last "
                "layer that carries all of it is found.",
                LayerWarning,
            )
        return site


def _may_cut(survey: Survey) -> bool:
    """Whether another part of images of another size may reach the layers; of scripted code nothing tells."""
    is_hidden = any(isinstance(module, torch.jit.ScriptModule) for module in survey.seen.model.modules())
    return is_hidden or cuts_by_numbers(survey.seen.functions)


def _all_modules(model: nn.Module) -> list[nn.Module]:
    """The model and all modules inside, each once; in a tenth of the time of `model.modules()`, which makes names."""
    modules = {model: None}
    waiting = [model]
    while waiting:
        for module in waiting.pop()._modules.values():
            if module is not None and module not in modules:
                modules[module] = None
                waiting.append(module)
    return list(modules)


_FUNCTIONS = {types.FunctionType, types.MethodType, types.BuiltinFunctionType}
_SETTINGS = frozenset({bool, int, float, str, type(None), *_FUNCTIONS})


def _decides(value: object) -> bool:
    """Whether an attribute may decide which way a module takes."""
    if value.__class__ is tuple:
        return all(map(_decides, value))
    return value.__class__ in _SETTINGS or isinstance(value, Enum)


def _values(modules: Sequence[nn.Module]) -> list[object]:
    """All attributes of modules, and the numbers of their hooks that are not contrex's own."""
    found: list[object] = []
    for module in modules:
        attributes = module.__dict__
        found += attributes.values()
        for hooks in (attributes["_forward_hooks"], attributes["_forward_pre_hooks"]):
            if hooks:
                found += [number for number in hooks if number not in capture.OWN_HOOKS]
    return found
