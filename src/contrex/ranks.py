"""The processes of a run that torchrun started: which one this is, and what all of them hold."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this is one process of several that talk to each other."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 where there is only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def gathered(own: T) -> list[T]:
    """What every process passes, in the order of their ranks; all must call it.

    >>> gathered("only")
    ['only']
    """
    if not is_distributed():
        return [own]
    found: list[T] = [own] * world_size()  # each place is filled by its process
    dist.all_gather_object(found, own)
    return found
