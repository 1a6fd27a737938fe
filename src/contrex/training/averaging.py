"""The exponential moving average of a network's weights, which is what a run with `training.ema` gives.

    m_t = d m_(t-1) + (1 - d) w_t,    average = m_t / (1 - d^t)

for the weights w_t after optimiser step t (from 1) and the decay d. The division corrects the bias towards 0, as Adam's
does (Kingma and Ba 2015, section 3), so that the weights that a run begins with have no part in it: after one step the
average is w_1. Written for the average itself,

    average_t = average_(t-1) + (1 - d) / (1 - d^t) (w_t - average_(t-1)),

it has no state but itself. What no optimiser moves is not averaged: batch-norm statistics are those of the trained
network, and frozen parameters are what they are. In a method of two phases each parameter is averaged over the steps of
the phase that moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from contrex.methods import Phase, Plan
from contrex.methods.averaging import follow


class Averages:
    """Moving averages of the parameters that a run trains; without a decay there are none.

    Where the processes of a run share out weights, each averages its share.
    """

    def __init__(self, plan: Plan, decay: float | None) -> None:
        self._decay = decay or 0.0
        names = {parameter: name for name, parameter in plan.phases[0].step.network.named_parameters()}
        moved = [parameter for phase in plan.phases for parameter in phase.parameters if parameter in names]
        self._parameters = {names[parameter]: parameter for parameter in moved} if decay else {}
        self._averages = _copies(self._parameters)

    def update(self, phase: Phase, step: int) -> None:
        """Move the averages towards the weights after optimiser step number `step` (from 1) of a phase."""
        moved = set(phase.parameters)
        names = [name for name, parameter in self._parameters.items() if parameter in moved]
        if names:
            # The decay without bias, of the module's docstring: 0 at the first step, so that the average is those
            # weights.
            kept = 1 - (1 - self._decay) / (1 - self._decay**step)
            averages, weights = ([own[name].detach() for name in names] for own in (self._averages, self._parameters))
            follow(averages, weights, kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the network for a while; afterwards it has the trained weights again, bit for bit."""
        trained = _copies(self._parameters)
        self.keep()
        try:
            yield
        finally:
            _fill(self._parameters, trained)

    def keep(self) -> None:
        """Leave the averages in the network."""
        _fill(self._parameters, self._averages)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameters' names in the network."""
        return dict(self._averages)

    def load_state_dict(
        self, state: Mapping[str, Tensor], own_share: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        """Go on from the averages of a checkpoint; `own_share` cuts out of a tensor what this process keeps of a
        parameter."""
        _fill(
            self._averages, {n: v if own_share is None else own_share(self._averages[n], v) for n, v in state.items()}
        )


def load_averages(network: nn.Module, averages: Mapping[str, Tensor]) -> None:
    """Put the averages of a checkpoint, which has them by the names of parameters, into a network."""
    _fill(dict(network.named_parameters()), averages)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _fill(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
