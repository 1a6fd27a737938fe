"""What an explainer has looked up about the layers of its model, kept as long as it holds."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from contrex.errors import LayerWarning
from contrex.explain import capture
from contrex.explain.capture import Pass
from contrex.explain.survey import Survey, check_pass
from contrex.models.layers import Layer, Reshape, Site, find_layer
from contrex.models.reading import Reading

MUCH = 0.1
"""The share of the gradient that may flow past a layer that the user named, without a warning."""

Key = tuple[Hashable, torch.Size, tuple[bool, ...]]
"""What was asked for, the size of the images, and the mode of each module."""
T = TypeVar("T", Site, Reading)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A layer found by itself, and what of its survey tells whether it is right for images of another size too."""

    site: Site
    reading: Reading
    images: torch.Size
    functions: Sequence[str]
    has_single_cells_behind: bool

    def encloses(self, images: Tensor) -> bool:
        """Whether these images are nowhere larger."""
        return all(side <= known for side, known in zip(images.shape[2:], self.images[2:], strict=True))


class Sites:
    """Looks layers up in one pass of the model for each size of images, and again once the model is another one.

    A module that was added or replaced makes another model of it (its weights do not), and so does a module that went
    from train to eval mode or back: some networks then take another way.
    """

    def __init__(self, model: nn.Module, reshape: Reshape | None = None) -> None:
        self._model, self._reshape = model, reshape
        self._found: dict[Key, Site | Reading] = {}
        self._modules: Sequence[weakref.ref[nn.Module]] = ()
        self._own_logits: Tensor | None = None
        """Those of the survey that the running call has made, until its pass was compared with them."""
        self._seen: _Seen | None = None
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
            self._own_logits = survey.logits.detach().clone()  # a copy: nothing of the pass is kept
            if layer is not None:
                return self._named(survey, layer)
            site = choose(survey) if choose else survey.choose(self._reshape)
            if isinstance(site.maps, Reading) and site.maps.is_plain_grid:
                self._seen = _Seen(
                    site, site.maps, images.shape, survey.functions, survey.has_single_cells_behind(site)
                )
            return site

        return [self._kept(layer, images, lambda layer=layer: look_up(layer)) for layer in layers]  # type: ignore[misc]

    def run_as_seen(self, images: Tensor, run: Callable[[Site], Pass]) -> Pass | None:
        """`run(site)` at the layer that was found at another size of images, if that is right for this size too.

        It is if the network calls the same functions, so that its graph is the same, and no layer behind has a grid
        now that had none: that can be where images are larger. So a new size needs no pass of its own.
        """
        seen, key = self._seen, self._key(None, images)
        if seen is None or key in self._found or (seen.has_single_cells_behind and not seen.encloses(images)):
            return None
        with capture.program() as functions:
            found = run(replace(seen.site, maps=seen.reading.of_any_size, shape=None))
        (features,) = found.features
        shape = features.maps(features.output.detach()).shape
        if functions != seen.functions or shape[2] * shape[3] < 2:
            return None
        self._found[key] = replace(
            seen.site, maps=seen.reading.of_any_size, grid=(shape[2], shape[3]), shape=features.output.shape[1:]
        )
        return found

    def token_grid(self, images: Tensor, num_tokens: int) -> Reading:
        """How `[N,num_tokens,1]` becomes maps `[N,1,h,w]`, or `LayerError`."""
        key = ("tokens", num_tokens)
        return self._kept(key, images, lambda: Survey(self._model, images).token_grid(num_tokens))

    def check_pass(self, run: Pass) -> None:
        """Compare the logits of a pass with those of the survey that came right before it, if one did."""
        own, self._own_logits = self._own_logits, None
        if own is not None:
            check_pass(run.logits, run.images, own, self._model)

    def _kept(self, asked: Hashable, images: Tensor, look_up: Callable[[], T]) -> T:
        key = self._key(asked, images)
        if key not in self._found:
            self._found[key] = look_up()
        return self._found[key]  # type: ignore[return-value]

    def _key(self, asked: Hashable, images: Tensor) -> Key:
        """What is kept of the model as it is now; of any other it is forgotten."""
        modules = list(self._model.modules())
        if len(modules) != len(self._modules) or any(
            known() is not module for known, module in zip(self._modules, modules, strict=True)
        ):
            self._modules = [weakref.ref(module) for module in modules]
            self._found.clear()
            self._seen = None
        return asked, images.shape[1:], tuple(module.training for module in modules)

    def _named(self, survey: Survey, layer: str | nn.Module) -> Site:
        site = survey.named(find_layer(self._model, layer), self._reshape)
        if site.past > MUCH and site.name not in self._warned:
            self._warned.add(site.name)
            warnings.warn(
                f"{site.past:.0%} of the gradient from the logits to the pixels flows past `layer` {site.name!r} of "
                f"{type(self._model).__name__}: its map shows a part of the explanation. With layer=None the last "
                "layer that carries all of it is found.",
                LayerWarning,
                stacklevel=2,
            )
        return site
