"""Networks that follow another one as an exponential moving average of its weights.

    m_t = d m_(t-1) + (1 - d) w_t

for the weights w_t after optimiser step t. `training.ema` (`contrex.training.averaging`) and the teachers of methods
share it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from contrex.settings.ranges import check


def follow(averages: Sequence[Tensor], values: Sequence[Tensor], decay: float) -> None:
    """Move each average by (1 - decay) of the way to its value, in place, all in one go on their device."""
    averaging: Any = get_ema_multi_avg_fn  # torch has no types for it
    averaging(decay)(list(averages), list(values), None)


class Teacher(nn.Module):
    """A copy of a network that follows it and is not trained (Tarvainen and Valpola, NeurIPS 2017, eq. 2).

    It begins with the weights of the network, is always in eval mode, and has the network's own buffers, batch-norm
    statistics among them; the paper's runs in train mode. A step makes one in its `__init__` and calls `after_step` in
    its own; the teacher is part of the step's state, so checkpoints have it. Without a `decay` it stays as it is.
    """

    def __init__(self, network: nn.Module, *, decay: float | None) -> None:
        super().__init__()
        check(decay is None or 0 <= decay < 1, "decay", decay, "from 0 to below 1")
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Any:
        """What its network returns for normalised images, without gradients."""
        with torch.no_grad():
            return self.network(images)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Move the teacher towards `network`, which has just taken a step."""
        if self.decay is None:
            return
        follow(list(self.network.parameters()), [weight.detach() for weight in network.parameters()], self.decay)
        for own, value in zip(self.network.buffers(), network.buffers(), strict=True):
            # Copied, not averaged: counters have no mean, and running statistics are averages already.
            own.copy_(value)
