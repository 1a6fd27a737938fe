"""torch.compile of the part of a network that no gradient is taken of within a step.

A heatmap's gradient is differentiated again in training, which compiled code does not allow; hooks do not see into it
either. Both happen at the explained layer and behind it. So what comes before is compiled, in pieces as large as they
can be, the blocks inside the explained layer among them, and the rest runs as ever: exact, whatever the head. In a
method that looks at no layer, the network is compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrex.explain.forward.capture import undisturbed, watched
from contrex.methods import Step

BACKEND = "inductor"

RECOMPILE_LIMIT = 64
"""Variants of one function that are compiled before the rest runs uncompiled: blocks of one class share it."""


def compile_network(step: Step, images: Tensor) -> list[str]:
    """Compile, in place, the parts of a step's network that come before what it explains; return their names, "" for
    all of it.

    `images` [N,3,S,S] in [0, 1] are run once, in eval mode, to see what runs before what.
    """
    looked_into = step.looked_into(images)
    network = step.network
    pieces = [""] if not looked_into else pieces_before(network, step.normalise(images), looked_into[0])
    # Takes seconds, and only here is it needed.
    import torch._dynamo as dynamo

    config: Any = dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    for name in pieces:
        network.get_submodule(name).compile(backend=BACKEND)
    return pieces


def pieces_before(network: nn.Module, images: Tensor, layer: nn.Module) -> list[str]:
    """The names of the largest modules of several layers that end before `layer` does, and do not run after it."""
    order = running_order(network, images)
    end = len(order) - 1 - order[::-1].index(layer)
    return list(_largest(network, set(order[:end]), set(order[end:]), ""))


def names_after_explained(step: Step, images: Tensor) -> list[str]:
    """The names of the modules that run after the layer that `step` looks into first."""
    names = {module: name for name, module in step.network.named_modules()}
    order = running_order(step.network, step.normalise(images))
    return [names[module] for module in order[order.index(step.looked_into(images)[0]) + 1 :]]


def running_order(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """The modules in the order in which they end, in one pass in eval mode that leaves no trace."""
    order: list[nn.Module] = []
    modules: Sequence[nn.Module] = list(network.modules())
    with undisturbed(network, images.device), torch.no_grad(), watched(modules, lambda module, _: order.append(module)):
        network(images)
    return order


def _largest(module: nn.Module, before: set[nn.Module], after: set[nn.Module], prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        parts = set(child.modules())
        if child in before and len(parts) > 1 and not parts & after:
            yield prefix + name
        else:
            yield from _largest(child, before, after, f"{prefix}{name}.")
