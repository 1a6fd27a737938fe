"""The names of layers with weights, whether a module holds the weights or computes them from what it holds."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from contrex.explain.forward.in_place import tensors_in


def layer_names(model: nn.Module) -> list[str]:
    """The names of the layers that have weights: of the modules that hold them, and of attention's joint projection.

    >>> layer_names(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.MultiheadAttention(2, 1)))
    ['0', '2.in_proj', '2.out_proj']
    """
    return list(weight_axes(model))


def weight_axes(model: nn.Module) -> dict[str, int]:
    """How many axes the weights of each layer have that has some."""
    held = {_original(name): p.ndim for name, p in model.named_parameters() if p.ndim > 1}
    return {_layer(name): axes for name, axes in held.items() if name.endswith("weight")}


def names_of_tensors(model: nn.Module) -> list[str]:
    """Names that a layer could have where the model calls functions instead of modules: those of all tensors of more
    than one axis that it holds."""
    held = (*model.named_parameters(), *model.named_buffers())
    return [_layer(_original(name)) for name, tensor in held if tensor.ndim > 1]


class Names:
    """The name of the layer whose weights a tensor is: its own, or that of what it was computed from in this pass."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = set(layer_names(model))
        # By id, as tensors compare by their numbers. The model keeps its own, and the others are kept here until the
        # pass is over, so no id is taken over.
        held = (*model.named_buffers(), *model.named_parameters())
        self._names = {id(tensor): _layer(_original(name)) for name, tensor in held}
        self._kept: list[Tensor] = []

    def of(self, tensor: Tensor | None) -> str:
        """The name of a tensor; "" where it is none of the model's, or does not only come from these."""
        return self._names.get(id(tensor), "")

    def add(self, taken: Any, outputs: Any, *, target: Tensor | None) -> None:
        """Know what a function made; one that writes changes its `target`."""
        tensors = list(tensors_in(taken))
        if any(id(tensor) not in self._names for tensor in tensors):  # of the images, it may be
            self._names.pop(id(target), None)
            return
        names = [name for name in map(self.of, tensors) if name]
        name = next((one for one in names if one in self._layers), names[0] if names else "")
        for tensor in tensors_in(outputs):
            self._kept.append(tensor)
            self._names.setdefault(id(tensor), name)


def _original(name: str) -> str:
    """The name of a parameter without what torch adds to that of one which is computed: weight norm, pruning, ..."""
    name = re.sub(r"\bparametrizations\.(\w+)\..*", r"\1", name)
    return re.sub(r"\bweight_(g|v|orig)$", "weight", name)


def _layer(parameter: str) -> str:
    return parameter.removesuffix("weight").rstrip("._")
