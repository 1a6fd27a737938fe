"""Train and eval mode, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode for a while, and then back into its own mode, also after an exception."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            # The flag of each module: `train()` may be overridden, and would give all of them one mode.
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
