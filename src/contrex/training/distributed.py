"""A step on several processes: its share of each batch, DDP around it, and what is refused, with the reason.

With negatives from all processes (`contrex.methods`) and equal shares, the mean of the processes' gradients is the
gradient of one process with the whole batch. Batch norm is the exception: in train mode each process normalises with
the statistics of its own share, unless `training.sync_batch_norm` is set; its running statistics are averaged over the
processes after each step, so that all hold the same network.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError, ProcessError
from contrex.methods import Plan, Step, StepOutput
from contrex.models import Classifier
from contrex.settings import Training

# --- what is refused ------------------------------------------------------------------------------------------------


def check_device(options: Training, device: torch.device) -> None:
    """Refuse options that do not fit the device or the number of processes.

    Raises:
        ArgumentError: the batch cannot be shared out evenly, the device is one GPU for all, there is nothing to shard,
            or batch norm cannot be synchronised.
    """
    num = ranks.world_size()
    check_shares("training.batch_size", options.batch_size, options)
    if num > 1 and device.index is not None:
        raise ArgumentError(
            f"`training.device` {device} is one GPU for {num} processes: write cuda, and each takes one of its own."
        )
    if options.shard and num == 1:
        raise ArgumentError(
            "`training.shard` shares weights out among processes, and there is one: start several with "
            "torchrun --nproc-per-node N -m contrex train ..., or leave it out."
        )
    if options.sync_batch_norm and num > 1 and device.type == "cpu":
        raise ArgumentError(
            "`training.sync_batch_norm` needs GPUs, torch has no synchronised batch norm for CPUs: leave it out (each "
            "process then normalises with its own share of the batch), or train one process."
        )


def check_shares(name: str, size: int, options: Training) -> None:
    """Refuse a batch that the processes, and the parts of `accumulate`, cannot share evenly.

    Raises:
        ArgumentError: with the sizes near it that they can.
    """
    num, parts = ranks.world_size(), ranks.world_size() * options.accumulate
    if size % parts:
        by = f" x `training.accumulate` {options.accumulate}" if options.accumulate > 1 else ""
        below = size // parts * parts
        near = " or ".join(str(even) for even in (below, below + parts) if even)
        raise ArgumentError(f"`{name}` {size} cannot be shared evenly by {num} processes{by}: take {near}.")


def check_plan(options: Training, plan: Plan) -> None:
    """Refuse options under which a method's gradient would be another one.

    Raises:
        ArgumentError: parts of a batch would have fewer negatives, or one network would be sharded for two phases.
    """
    contrastive = next((phase.step for phase in plan.phases if phase.step.has_negatives), None)
    if options.accumulate > 1 and contrastive is not None:
        raise ArgumentError(
            f"`training.accumulate` {options.accumulate} would change the loss of {type(contrastive).__name__}: an "
            "image would have negatives in its part of the batch only. Use more processes, which share their "
            "negatives, a smaller `training.batch_size`, or bfloat16."
        )
    if options.shard and len(plan.phases) > 1:
        raise ArgumentError(
            f"`training.shard` is for methods of one phase: {type(plan.phases[0].step).__name__} and "
            f"{type(plan.phases[1].step).__name__} train parts of one network in turns. Leave it out."
        )


def synchronise_batch_norm(classifier: Classifier, options: Training) -> Classifier:
    """The classifier with synchronised batch norms, where there are several processes and the options ask for it."""
    if not options.sync_batch_norm or ranks.world_size() == 1:
        return classifier
    from timm.layers.norm_act import convert_sync_batchnorm

    convert: Any = convert_sync_batchnorm  # torch's own would drop the activations in timm's batch norms
    return replace(classifier, network=convert(classifier.network))


def check_batch_norm(step: Step, names_after: Sequence[str]) -> None:
    """Refuse a synchronised batch norm that a gradient within the forward would have to pass: its backward has no
    gradient of its own.

    Raises:
        ArgumentError: one of the layers that run after the explained one, `names_after`, is a batch norm.
    """
    modules = dict(step.network.named_modules())
    found = [name for name in names_after if isinstance(modules[name], _BatchNorm)]
    if found:
        raise ArgumentError(
            f"`training.sync_batch_norm` and the layer that {type(step).__name__} explains: batch norm {found[0]!r} "
            "comes after it, and the gradient of a heatmap cannot pass a synchronised one. Explain the last feature "
            "map (`method.layer` None), or leave it out."
        )


# --- the share of a process -----------------------------------------------------------------------------------------


def own_parts(options: Training, batch_size: int | None = None) -> list[slice]:
    """The parts of each batch that this process reads, one for each part of `training.accumulate`; `batch_size` is the
    labelled one where it is None."""
    whole = options.batch_size if batch_size is None else batch_size
    size = whole // (ranks.world_size() * options.accumulate)
    first = ranks.rank() * options.accumulate
    return [slice(number * size, (number + 1) * size) for number in range(first, first + options.accumulate)]


# --- the step around which the processes meet -----------------------------------------------------------------------


class Runner:
    """Runs the step of one phase, as it is."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, batch: Batch) -> StepOutput:
        output: StepOutput = self.step(batch)
        return output

    def unsynchronised(self) -> AbstractContextManager[None]:
        """Keep gradients in this process for a while: those of all parts of a batch but the last."""
        return nullcontext()

    def whole(self) -> AbstractContextManager[None]:
        """Put the parameters together for a while, so that the network can be called by itself."""
        return nullcontext()


class ReplicatedRunner(Runner):
    """Runs the step of a phase that has begun inside DDP: gradients are means over the processes.

    DDP keeps the layout of its buckets when it looks for unused parameters, and with it the order of its sums: a run
    resumed in the middle adds up as one that was not interrupted.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
        # Running statistics are averaged after the step (`average_running_statistics`); DDP would give all those of
        # process 0.
        own: Any = {buffers: False}
        self._replica = DistributedDataParallel(step, find_unused_parameters=True, **own)

    def __call__(self, batch: Batch) -> StepOutput:
        output: StepOutput = self._replica(batch)
        return output

    def unsynchronised(self) -> AbstractContextManager[None]:
        return cast("AbstractContextManager[None]", self._replica.no_sync())


def runner(step: Step) -> Runner:
    """The step of a phase that has begun, on all processes."""
    return Runner(step) if ranks.world_size() == 1 else ReplicatedRunner(step)


# --- what all processes hold ----------------------------------------------------------------------------------------


def average_running_statistics(step: Step) -> None:
    """Give the batch norms in train mode the mean over all processes of their running means and variances."""
    if ranks.world_size() == 1:
        return
    statistics = [
        value
        for module in step.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
        for value in (module.running_mean, module.running_var)
        if value is not None
    ]
    if not statistics:
        return
    with torch.no_grad():
        # Sync point: one exchange for all layers.
        flat = torch.cat([value.flatten() for value in statistics])
        dist.all_reduce(flat)
        means = torch.split(flat / ranks.world_size(), [value.numel() for value in statistics])
        for value, mean in zip(statistics, means, strict=True):
            value.copy_(mean.view_as(value))


def check_equal(plan: Plan) -> None:
    """Refuse to begin where the processes do not all have the same weights and state.

    Raises:
        ProcessError: one does not.
    """
    if ranks.world_size() == 1:
        return
    digests = ranks.gathered(_digest(plan))
    different = [number for number, digest in enumerate(digests) if digest != digests[0]]
    if different:
        raise ProcessError(
            f"processes {', '.join(map(str, different))} begin with other weights than process 0: all need the same "
            "machine, versions and recipe."
        )


def _digest(plan: Plan) -> str:
    """SHA-256 of all weights and state."""
    digest = hashlib.sha256()
    for step in plan.modules():
        for name, value in step.state_dict().items():
            digest.update(name.encode())
            # Waits for the device, once at a start: only bytes tell equal from nearly equal.
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
