"""What a call must leave alone in a model and in the process, and states of a model that it must survive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


def state_of(model: nn.Module) -> dict[str, list[object]]:
    """Everything of a model and of the process that a call must leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "values": [t.detach().clone() for t in (*model.parameters(), *model.buffers())],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(getattr(m, name)) for m in model.modules() for name in hooks],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "flags": [{k: v for k, v in vars(m).items() if isinstance(v, bool)} for m in model.modules()],
        "random state": [torch.get_rng_state()],
        "grad mode": [torch.is_grad_enabled()],
    }


@contextlib.contextmanager
def some_modules_training(model: nn.Module) -> Iterator[None]:
    """Put every other module into train mode, and all back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        for index, module in enumerate(modes):
            module.training = index % 2 == 0
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Freeze all parameters, and undo it afterwards."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
