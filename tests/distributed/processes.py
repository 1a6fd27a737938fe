"""Starting a function in several processes that talk over gloo, as torchrun would, and what comes back from each.

A server that has imported everything forks them, so a group of processes starts in a fifth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from unittest import mock

import torch

from contrex import ranks

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
_CONTEXT = multiprocessing.get_context("forkserver")
# What takes seconds to import: the jobs, and what torch loads when an optimiser is made or weights are shared out.
_CONTEXT.set_forkserver_preload(["distributed.jobs", "torch._dynamo", "torch.distributed.fsdp"])


@cache
def _start_server():
    """Start the server where it finds the tests: it has the environment of its start, not this process's `sys.path`."""
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()


@dataclass
class Raised:
    """What a process raised: the name of its error, its message, its exit code and the traceback as text."""

    kind: str
    message: str
    exit_code: int | None
    trace: str


def run(num, function, *arguments, timeout=240.0):
    """`function(*arguments)` in `num` processes; what each returned, or a `Raised`, or None for one that was killed, in
    the order of their ranks."""
    _start_server()
    results = _CONTEXT.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _CONTEXT.Process(target=_one, args=(rank, num, port, results, function, arguments)) for rank in range(num)
    ]
    for process in processes:
        process.start()
    found, deadline = {}, time.monotonic() + timeout
    while time.monotonic() < deadline and (any(p.is_alive() for p in processes) or not results.empty()):
        if results.empty():
            time.sleep(0.01)
            continue
        rank, result = pickle.loads(results.get())
        found[rank] = result
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    assert not hanging, f"{function.__name__} did not end within {timeout} s in processes {hanging}"
    return [found.get(rank) for rank in range(num)]


def results_of(num, function, *arguments, timeout=240.0):
    """As `run`, where no process may fail."""
    found = run(num, function, *arguments, timeout=timeout)
    for one in found:
        assert not isinstance(one, Raised), one.trace
    return found


def _one(rank, num, port, results, function, arguments):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with ranks.process_group():
            result = function(*arguments)
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        result = Raised(type(error).__name__, str(error), code, traceback.format_exc())
    results.put(pickle.dumps((rank, result)))  # tensors by value: this process does not stay to share them
