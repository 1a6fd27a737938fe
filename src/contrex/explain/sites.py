"""What an explainer has looked up about the layers of its model, kept as long as it holds."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from contrex.errors import LayerWarning
from contrex.explain.survey import Survey, check_pass
from contrex.models.layers import Layer, Reshape, Site, find_layer
from contrex.models.reading import Reading

MUCH = 0.1
"""The share of the gradient that may flow past a layer that the user named, without a warning."""

Key = tuple[Hashable, torch.Size, tuple[bool, ...]]
"""What was asked for, the size of the images, and the mode of each module."""
T = TypeVar("T", Site, Reading)


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
            self._own_logits = surveys[0].logits.detach().clone()  # a copy: nothing of the pass is kept
            if layer is None:
                return choose(surveys[0]) if choose else surveys[0].choose(self._reshape)
            return self._named(surveys[0], layer)

        return [self._kept(layer, images, lambda layer=layer: look_up(layer)) for layer in layers]  # type: ignore[misc]

    def token_grid(self, images: Tensor, num_tokens: int) -> Reading:
        """How `[N,num_tokens,1]` becomes maps `[N,1,h,w]`, or `LayerError`."""
        key = ("tokens", num_tokens)
        return self._kept(key, images, lambda: Survey(self._model, images).token_grid(num_tokens))

    def check_pass(self, logits: Tensor) -> None:
        """Compare the logits of a pass with those of the survey that came right before it, if one did."""
        own, self._own_logits = self._own_logits, None
        if own is not None:
            check_pass(logits, own, self._model)

    def _kept(self, asked: Hashable, images: Tensor, look_up: Callable[[], T]) -> T:
        modules = list(self._model.modules())
        if len(modules) != len(self._modules) or any(
            known() is not module for known, module in zip(self._modules, modules, strict=True)
        ):
            self._modules = [weakref.ref(module) for module in modules]
            self._found.clear()
        key: Key = (asked, images.shape[1:], tuple(module.training for module in modules))
        if key not in self._found:
            self._found[key] = look_up()
        return self._found[key]  # type: ignore[return-value]

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
