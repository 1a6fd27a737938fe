"""Several processes of this machine that share one work.

    spread(work, 4, console=console)    four processes, each of which calls `work(console)`

What is whose they settle by locks (`contrex.training.lock`), with processes that were started elsewhere too. GPUs are
dealt out in turn, threads of the CPU in equal parts. The processes are started anew instead of forked, hear no Ctrl-C
of the terminal, and stop as by SIGTERM, after a checkpoint, when the one that started them is gone.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, NamedTuple, cast

import torch
from rich.console import Console

from contrex.errors import ContrexError, InterruptedRunError, ProcessError
from contrex.training.stopping import signals

Work = Callable[[Console], object]
"""Something that pickle knows: a function of a module, or `functools.partial` of one."""

POLL = 0.05
"""Seconds between two looks at the processes."""


KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""What makes glibc keep the memory of a step for the next one. To get it anew takes up to a tenth of the steps of a
small network on a CPU; arrays of 32 MB and more are given back as ever."""


class Job(NamedTuple):
    """A process, and the pipe by which it says why it failed."""

    number: int
    process: BaseProcess
    failure: Connection


def spread(work: Work, jobs: int, *, console: Console) -> None:
    """Call `work` in `jobs` processes and wait for all of them.

    One that fails ends the others. One that is killed does not: what it leaves is for them, or for the caller.

    Raises:
        ProcessError: one failed; the message says why, and the exit code is that of its error.
        InterruptedRunError: SIGINT or SIGTERM, which all of them got; each has written a checkpoint.
    """
    with signals() as requests:
        running = [_started(work, number, jobs) for number in range(1, jobs + 1)]
        failure: ProcessError | None = None
        asked = False
        while any(job.process.is_alive() for job in running):
            failure = failure or next(filter(None, map(_failure, running)), None)
            if not asked and (requests.received or failure):
                asked = True
                for job in running:
                    job.process.terminate()
            time.sleep(POLL)
    if requests.received:
        name = signal.Signals(requests.received[0]).name
        raise InterruptedRunError(f"stopped by {name}", requests.received[0])
    failure = failure or next(filter(None, map(_failure, running)), None)
    if failure is not None:
        raise failure
    for job in running:
        if job.process.exitcode:
            console.print(f"job {job.number} ended early, with exit code {job.process.exitcode}", highlight=False)


def environments(jobs: int, *, num_gpus: int, num_threads: int, visible: str | None) -> list[dict[str, str]]:
    """The environment variables of each process: its GPU, where there are several, and its number of threads.

    `visible` is the CUDA_VISIBLE_DEVICES of this process.

    >>> environments(3, num_gpus=2, num_threads=8, visible="4,7")[2]
    {'OMP_NUM_THREADS': '2', 'CUDA_VISIBLE_DEVICES': '4'}
    """
    names = visible.split(",")[:num_gpus] if visible else [str(number) for number in range(num_gpus)]
    threads = {"OMP_NUM_THREADS": str(max(1, num_threads // jobs))}
    if num_gpus < 2:
        return [threads] * jobs
    return [{**threads, "CUDA_VISIBLE_DEVICES": names[number % num_gpus]} for number in range(jobs)]


def jobs_for_small_runs() -> int:
    """How many processes share runs of a small network best.

    One such run with two threads is a fifth slower than two with a thread each. On a CPU it is half as many again as
    there are threads, so that three runs of equal length keep two cores busy to the end; on a GPU, which has no room
    to spare, or with one thread, it is one.
    """
    threads = 1 if torch.cuda.is_available() else torch.get_num_threads()
    return threads + threads // 2


def _started(work: Work, number: int, jobs: int) -> Job:
    own = environments(
        jobs,
        num_gpus=torch.cuda.device_count(),
        num_threads=torch.get_num_threads(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )[number - 1]
    # Not forked: a copy of this process would have its CUDA context, which works in one process only, and its held
    # locks.
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_job, args=(work, number, writing), name=f"contrex-job-{number}", daemon=False)
    # Set for the moment of the start: a child inherits them, and torch reads them when it is imported there.
    kept = {} if torch.cuda.is_available() else {name: os.environ.get(name, value) for name, value in KEEPING.items()}
    with _environment(own | kept):
        process.start()
    # Only the job has an end to write to now, so the pipe ends when the job does.
    writing.close()
    return Job(number, process, reading)


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _failure(job: Job) -> ProcessError | None:
    """The reason that a process has given for its failure."""
    try:
        if not job.failure.poll():
            return None
        message, exit_code = job.failure.recv()
    except (EOFError, OSError):  # it has ended without
        return None
    failure = ProcessError(f"job {job.number} has stopped: {message}")
    failure.exit_code = exit_code
    return failure


def _job(work: Work, number: int, writing: Connection) -> None:
    """Do the work in a process of its own, and report how it ended."""
    if sys.platform != "win32":
        os.setsid()  # Ctrl-C is for the one that waits, which passes it on once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Console(file=cast("IO[str]", _Numbered(number)), force_terminal=False, width=1000))
    except InterruptedRunError as error:
        sys.exit(error.exit_code)
    except Exception as error:
        is_own = isinstance(error, ContrexError)
        writing.send((str(error) if is_own else f"{type(error).__name__}: {error}", getattr(error, "exit_code", 1)))
        if not is_own:
            raise
        sys.exit(1)


def _end_with_parent() -> None:
    # A waiting process that is killed cannot end its jobs; they would train on, unseen.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Numbered(io.TextIOBase):
    """Standard error, with the number of the process before each line."""

    def __init__(self, number: int) -> None:
        self._start = f"[{number}] "

    def write(self, text: str) -> int:
        lines = text.splitlines(keepends=True)
        return sys.stderr.write("".join(f"{self._start}{line}" if line.strip() else line for line in lines))

    def flush(self) -> None:
        sys.stderr.flush()
