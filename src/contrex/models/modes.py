"""Train and eval mode, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside; afterwards each in its own mode again, also after an exception."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            # The flag itself: `model.eval()` may be overridden, and would be called for modules that keep others in
            # train mode.
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
