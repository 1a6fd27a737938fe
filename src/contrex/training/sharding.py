"""FSDP2: each of several processes keeps a share of the weights, and with it of gradients and optimiser's state.

The step is one unit: its parameters are whole from the beginning of a forward pass to the end of the backward one, so
that what explains a layer within may differentiate through all that follows, whatever the head. What is saved is the
memory of the optimiser's state, and of weights and gradients outside the two passes; activations, most of a
convolutional network's memory, are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.methods import Plan, Step, StepOutput
from contrex.training.distributed import Runner

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class ShardedRunner(Runner):
    """Runs a step whose parameters are shared out among the processes."""

    def __init__(self, step: Step, device: torch.device) -> None:
        super().__init__(step)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # loads slowly, and only here is it needed

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
    """Share out the parameters of a plan's only phase among the processes; return the plan and the phase's runner."""
    (phase,) = plan.phases
    names = {parameter: name for name, parameter in phase.step.named_parameters()}
    runner = ShardedRunner(phase.step, device)
    shared = dict(phase.step.named_parameters())  # they take the places of the whole ones
    parameters, head = ([shared[names[whole]] for whole in own] for own in (phase.parameters, phase.head))
    return replace(plan, phases=[replace(phase, parameters=parameters, head=head)]), runner


def is_shared_out(value: object) -> TypeGuard[DTensor]:
    """Whether a value is a tensor of which each process has a part. Nothing is, before what shares out was loaded."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(value, loaded.DTensor)


def whole_state(value: Any) -> Any:
    """Put together the tensors of a state dict that are shared out; all processes must call it."""
    if is_shared_out(value):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: whole_state(part) for key, part in value.items()}
    return [whole_state(part) for part in value] if isinstance(value, list) else value


def shared_out(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Cut the whole state of an optimiser down to the part that this process keeps."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        number: {name: own_share_of(parameters[number], value) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": shares}


def own_share_of(parameter: Tensor, value: Any) -> Any:
    """The part of `value` that this process keeps, as it keeps one of `parameter`; all of it where that is not shared
    out."""
    if not is_shared_out(parameter) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value  # the number of steps, which each process has
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
