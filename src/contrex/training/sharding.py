"""FSDP2: each of several processes keeps a share of the weights, and with it of gradients and optimiser's state.

The step is one unit: its parameters are whole from the beginning of a forward pass to the end of the backward one, so
that what explains a layer within may differentiate through all that follows, whatever the head. What is saved is the
memory of the optimiser's state, and of weights and gradients outside the two passes; activations, most of a
convolutional network's memory, are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.methods import Plan, Step, StepOutput
from contrex.training.distributed import Runner


class ShardedRunner(Runner):
    """Runs a step whose parameters are shared out among the processes."""

    def __init__(self, step: Step, device: torch.device) -> None:
        super().__init__(step)
        # it becomes an FSDPModule as well as the module that it is
        self._module: Any = fully_shard(_Whole(step), mesh=init_device_mesh(device.type, (ranks.world_size(),)))

    def __call__(self, batch: Batch) -> StepOutput:
        return StepOutput(*self._module(batch))

    @contextmanager
    def unsynchronised(self) -> Iterator[None]:
        self._module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._module.set_requires_gradient_sync(True)

    @contextmanager
    def whole(self) -> Iterator[None]:
        self._module.unshard()
        try:
            yield
        finally:
            self._module.reshard()


class _Whole(nn.Module):
    """A step as `fully_shard` takes it: it finds the loss in a tuple, not in a dataclass."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The fields of the step's output."""
        output: StepOutput = self.step(batch)
        return output.loss, output.logs


def sharded(plan: Plan, device: torch.device) -> tuple[Plan, ShardedRunner]:
    """The plan with the parameters of its only phase shared out, and the runner of that phase."""
    (phase,) = plan.phases
    names = {parameter: name for name, parameter in phase.step.named_parameters()}
    runner = ShardedRunner(phase.step, device)
    shared = dict(phase.step.named_parameters())  # they take the places of the whole ones
    parameters, head = ([shared[names[whole]] for whole in own] for own in (phase.parameters, phase.head))
    return replace(plan, phases=[replace(phase, parameters=parameters, head=head)]), runner


def whole_state(value: Any) -> Any:
    """A state dict with the tensors that are shared out put together; all processes must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: whole_state(part) for key, part in value.items()}
    return [whole_state(part) for part in value] if isinstance(value, list) else value


def shared_out(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """The whole state of `optimizer`, of which each process keeps the share that it has of the parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        number: {name: shared_as(parameters[number], value) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": shares}


def shared_as(parameter: Tensor, value: Any) -> Any:
    """Of a whole tensor the share that this process has of `parameter`; what is not shared out is whole in each."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value  # the number of steps, which each process has
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
