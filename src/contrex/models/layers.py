"""Finding the layer to explain, in any classifier."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrex.errors import LayerError, unknown_name

Layer = None | str | nn.Module
Reshape = Callable[[Tensor], Tensor]
"""From a layer's output to feature maps `[N,C,h,w]`; it only moves and drops elements."""


@dataclass(frozen=True)
class Flattened:
    """How a user's `reshape` reads maps of signals `[N,C,l]` as `[N,C,1,l]`, those of volumes `[N,C,d,h,w]` as
    `[N,C,d h,w]`, which formulas take like those of pictures; `rank` is 1 or 3."""

    reshape: Reshape
    rank: int

    def __call__(self, output: Tensor) -> Tensor:
        maps = self.reshape(output)
        if maps.ndim != self.rank + 2:
            sides = "l" if self.rank == 1 else "d,h,w"
            raise LayerError(
                f"`reshape` must give [{len(output)},C,{sides}] for such images, it gave {list(maps.shape)}."
            )
        return maps.unsqueeze(2) if maps.ndim == 3 else maps.flatten(2, 3)


@dataclass(frozen=True, eq=False)
class Site:
    """Where a network is explained: a layer, and how its output is read as maps `[N,C,h,w]`. The `grid` has one side
    for signals, two for pictures, three for volumes. Of a module that runs several times in a pass it is one `run`.

    `shape` is that of its output without the batch axis (None: not known yet), `past` the share of the gradient from
    the logits to the pixels that flows past it.
    """

    module: nn.Module
    maps: Reshape
    name: str
    grid: tuple[int, ...]
    shape: torch.Size | None
    past: float = 0.0
    run: int | None = None


def layer_name(layer: nn.Module, model: nn.Module) -> str:
    """The name of a module in `model`; its type's where it is the model itself, or none of it."""
    return next((name for name, module in model.named_modules() if module is layer), "") or type(layer).__name__


def unwrap(model: nn.Module) -> nn.Module:
    """The classifier inside `torch.compile`, `DistributedDataParallel` and `DataParallel`.

    Hooks do not run inside compiled code and gathering wrappers split batches, so explainers work on the plain module;
    it shares its parameters with the wrapper.
    """
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            model = model.module
        elif isinstance(original := getattr(model, "_orig_mod", None), nn.Module):
            model = original
        else:
            return model


def find_layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    """The submodule that `layer` names, or `layer` itself when it is a module of `model`.

    Raises:
        LayerError: the module belongs to another model.
        UnknownNameError: no module has that name; the message lists the nearest ones.
    """
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        if all(layer is not module for module in model.modules()):
            raise LayerError(
                f"`layer` must be a module of {type(model).__name__}, got a foreign {type(layer).__name__}."
            )
        return layer
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not isinstance(layer, str) or not layer or layer not in modules:
        raise unknown_name(f"`layer` of {type(model).__name__}", layer, _nearby_names(modules, str(layer)))
    return modules[layer]


def find_run(model: nn.Module, layer: str | nn.Module) -> tuple[nn.Module, int | None]:
    """The module that `layer` names, and which of its runs in a pass, counted from 0: "act:1" is the second one of
    "act", "act:-1" the last; None where it names none. Errors as in `find_layer`."""
    found = re.fullmatch(r"(.+):(-?\d+)", layer) if isinstance(layer, str) else None
    if found is None or layer in dict(model.named_modules()):
        return find_layer(model, layer), None
    return find_layer(model, found[1]), int(found[2])


def _nearby_names(modules: dict[str, nn.Module], wanted: str) -> list[str]:
    """The names worth listing: all modules as deep as the one asked for."""
    depth = wanted.count(".") if wanted else 0
    return [name for name in modules if name and name.count(".") <= depth]
