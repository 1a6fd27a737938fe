"""The processes of a run that torchrun started: which one this is, what all of them hold, and how they end together.

    torchrun --nproc-per-node 8 -m contrex train RECIPE

starts eight. They talk over gloo between CPUs and over NCCL between GPUs; small things (flags, messages, numbers to
log) always go between CPUs, so that they do not wait for a GPU's queue.

Legend: N rows of this process, D whatever else a row has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from contrex.errors import ArgumentError, ContrexError, ProcessError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for another that is alive but does not answer; one that is gone is noticed at once."""

_FAILURE = "contrex/failure"
"""Where the first process that fails leaves its number and its message."""


def is_distributed() -> bool:
    """Whether this is one process of several that talk to each other."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 where there is only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Let the processes that torchrun started talk to each other for a while; a process alone changes nothing.

    Each has the GPU of its `LOCAL_RANK`, where there are GPUs: `cuda` means that one from then on.

    Raises:
        ArgumentError: this machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or is_distributed():
        yield
        return
    if torch.cuda.is_available():
        _take_gpu(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    with ending_together():
        yield
    dist.destroy_process_group()  # not after an error: the others may be in the middle of an exchange


def _take_gpu(number: int, available: int) -> None:
    if number >= available:
        raise ArgumentError(
            f"`--nproc-per-node` must be at most {available}, the GPUs of this machine: process {number} has none. "
            "On the CPU, hide them: CUDA_VISIBLE_DEVICES='' torchrun ..."
        )
    torch.cuda.set_device(number)


# --- exchanging -----------------------------------------------------------------------------------------------------


def gathered(own: T) -> list[T]:
    """The values of all processes in the order of their ranks; all must call it.

    >>> gathered("only")
    ['only']
    """
    if not is_distributed():
        return [own]
    # Sync point.
    found: list[T] = [own] * world_size()  # each place is filled by its process
    dist.all_gather_object(found, own)
    return found


def largest(*own: int) -> list[int]:
    """The largest value among all processes, number by number; all must call it.

    >>> largest(0, 15)
    [0, 15]
    """
    if not is_distributed():
        return list(own)
    # Sync point.
    numbers = torch.tensor(own, device=_small_device())
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return cast("list[int]", numbers.tolist())


def means(own: Sequence[Tensor]) -> list[float]:
    """The mean over the processes of each of some scalars; all must call it.

    Sync point: the numbers leave the device, in one transfer for all of them.

    >>> means([torch.tensor(0.5)])
    [0.5]
    """
    if not is_distributed():
        return cast("list[float]", torch.stack([value.detach() for value in own]).tolist())
    values = torch.stack([value.detach().double() for value in own]).to(_small_device())
    dist.all_reduce(values)
    return cast("list[float]", (values / world_size()).tolist())


def gathered_rows(own: Tensor, *, equal: bool = True) -> list[Tensor]:
    """The tensors `[N,*D]` of every process, in the order of their ranks, as if they had all been made here: the
    gradient of what any process does with them goes back to the process that made them. All must call it.

    With the gradients of DDP, the mean over the processes, a loss that each takes over its own rows as anchors gives
    exactly the gradient of one process that has all the rows. Without `equal`, N may differ between processes; it may
    be 0. In one process it is `[own]`.

    >>> gathered_rows(torch.tensor([1.0, 2.0]))
    [tensor([1., 2.])]
    """
    if not is_distributed():
        return [own]
    # Sync point; a second one for the counts, where they may differ. Shorter tensors are filled up, as an exchange has
    # one size, and cut again below.
    counts = [len(own)] * world_size()
    if not equal:
        counts = gathered(len(own))
        own = torch.cat([own, own.new_zeros(max(counts) - len(own), *own.shape[1:])])
    rows: Tensor = _Gathered.apply(own)
    return [part[:count] for part, count in zip(rows.unbind(), counts, strict=True)]


class _Gathered(torch.autograd.Function):
    """`[N,*D]` to `[W,N,*D]`; the gradients of all W processes for a process' rows are added up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        # Channels last would be exchanged in the order of memory, which need not be the same in each process.
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Sync point in the backward pass: every process used every row, so a row's gradient is the sum over processes.
        # A clone, as autograd may use `gradient` elsewhere.
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed[rank()]


def _small_device() -> torch.device:
    """Where flags and numbers travel: between CPUs wherever the processes can."""
    return torch.device("cpu" if "cpu:" in dist.get_backend_config() else "cuda")


# --- ending together ------------------------------------------------------------------------------------------------


def from_first(made: Callable[[], T]) -> T:
    """Call `made` in the first process and give its result to all of them; an error there is an error in all of
    them."""
    if not is_distributed():
        return made()
    found: list[Any] = [None, None]
    if rank() == 0:
        try:
            found[0] = made()
        except (ContrexError, OSError) as error:
            found[1] = error
    # Sync point: the others wait here while the first one works.
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return cast("T", found[0])


@contextmanager
def together() -> Iterator[None]:
    """End all processes where one of them fails in what each does alone inside, with the message of the
    one that failed. Nothing inside may wait for another process.

    Raises:
        ProcessError: in the others, where one has failed; that one raises its own error.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if failure is not None and not is_distributed():
        raise failure
    # Sync point: all learn whether one has failed.
    if largest(failure is not None)[0]:
        messages = gathered(None if failure is None else _described(failure))
        if failure is not None:
            raise failure
        raise next(_stopped(number, message) for number, message in enumerate(messages) if message is not None)


@contextmanager
def ending_together() -> Iterator[None]:
    """End the other processes too where this one fails inside, with its message, also where they wait for this one.

    The process that fails leaves its message for the others before its connections break.

    Raises:
        ProcessError: another process has failed or is gone.
    """
    try:
        yield
    except ContrexError as error:
        _leave_message(error)
        raise
    except Exception as error:
        left = _message_of_another()
        if left is not None:
            raise _stopped(*left) from None
        _leave_message(error)
        if _is_lost_connection(error):
            reason = str(error).strip().splitlines()[-1]
            raise ProcessError(f"another process of this run is gone or does not answer ({reason}).") from error
        raise


def _stopped(number: int, message: str) -> ProcessError:
    return ProcessError(f"process {number} of {world_size()} has stopped: {message}")


def _described(error: Exception) -> str:
    """An error in words: what contrex raises on purpose is a sentence already."""
    return str(error) if isinstance(error, ContrexError) else f"{type(error).__name__}: {error}"


def _leave_message(error: Exception) -> None:
    if is_distributed() and not isinstance(error, ProcessError):
        try:
            # the first to come stays: what fails after it fails because of it
            _store().compare_set(_FAILURE, "", f"{rank()} {_described(error)}")
        except RuntimeError:  # the machine that holds the messages is gone
            return


def _message_of_another() -> tuple[int, str] | None:
    """The number and the message of the process that failed first, if it left one and is another than this."""
    try:
        if not is_distributed() or not _store().check([_FAILURE]):
            return None
        number, _, message = _store().get(_FAILURE).decode().partition(" ")
    except RuntimeError:
        return None
    return None if int(number) == rank() else (int(number), message)


def _store() -> Any:
    """The store by which the processes found each other; torch has no public name for it."""
    return dist.distributed_c10d._get_default_store()


def _is_lost_connection(error: Exception) -> bool:
    words = ("connection closed", "connection reset", "broken pipe", "timed out", "nccl", "gloo")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
