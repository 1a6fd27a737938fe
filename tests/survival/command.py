"""`contrex train` as a process of its own, or as several, that can be killed at a chosen step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from contrex.training.checkpoint import Checkpoints

STEPS_PER_EPOCH = 20
OPTIONS = (
    *("--no-evaluate", "--training.device", "cpu", "--training.checkpoint-minutes", "0"),
    *("--data.num-train", str(16 * STEPS_PER_EPOCH), "--data.num-val", "32", "--data.num-test", "8"),
    *("--data.image-size", "32", "--data.digit-size", "14", "18"),
    *("--training.batch-size", "16", "--method.queue", "32"),
)
"""Steps as fast as they get, a checkpoint after each, and a queue of heatmaps: everything that has state."""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
SLOW = 1800
"""Seconds after which a process hangs."""


def start(folder: Path, *options: str, epochs: int, ranks: int = 1, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    """The command, which continues what is in `folder`; a group of its own, so that all of it can be killed at once."""
    launcher = () if ranks == 1 else (*TORCHRUN, str(ranks))
    resume = ("--resume",) if (folder / "recipe.json").is_file() else ()
    words = ("-m", "contrex", "train", "digits_cgc", "--folder", str(folder), "--training.epochs", str(epochs))
    return subprocess.Popen(
        [*prefix, sys.executable, *launcher, *words, *OPTIONS, *resume, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(folder: Path, *options: str, epochs: int, ranks: int = 1) -> None:
    process = start(folder, *options, epochs=epochs, ranks=ranks)
    _, error = process.communicate(timeout=SLOW)
    assert process.returncode == 0, error.decode()


def last_step(folder: Path) -> int:
    """The step of the last checkpoint, as its index has it."""
    index = folder / "checkpoints" / "index.json"
    return json.loads(index.read_text())["last"]["step"] if index.is_file() else 0


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    """Until the run is at `step`, and at least one step further than it was before it was started."""
    deadline, step = time.monotonic() + SLOW, max(step, last_step(folder) + 1)
    while last_step(folder) < step:
        assert process.poll() is None, f"it ended before step {step}: {process.stderr.read().decode()}"
        assert time.monotonic() < deadline, f"it did not come to step {step} in {SLOW} s"
        time.sleep(0.005)


def kill_all(process: subprocess.Popen) -> None:
    """kill -9 of every process of the run at once: the machine has died."""
    everyone = [process.pid, *ranks_of(process)]  # each leads a group of its own, in which its workers are
    for pid in everyone:
        os.killpg(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(everyone)


def kill_torchrun(process: subprocess.Popen) -> None:
    """kill -9 of torchrun alone, which cannot end its processes then; they must end by themselves."""
    processes = ranks_of(process)
    os.kill(process.pid, signal.SIGKILL)
    _, error = process.communicate(timeout=SLOW)
    wait_until_gone(processes)
    assert b"stopped by the end of torchrun after step" in error


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + SLOW
    while any(_state(pid) not in (None, "Z") for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} some are alive after {SLOW} s"
        time.sleep(0.005)


def kill_one_rank(process: subprocess.Popen, rank: int) -> None:
    """kill -9 of one of torchrun's processes; the others must end, not wait for it for ever."""
    os.kill(ranks_of(process)[rank], signal.SIGKILL)
    process.communicate(timeout=SLOW)
    assert process.returncode != 0


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The process ids of torchrun's processes, by rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and _stat(folder)[1:2] == [str(process.pid)]:
            environment = (folder / "environ").read_bytes().split(b"\0")
            found |= {int(entry[5:]): int(folder.name) for entry in environment if entry.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def _state(pid: int) -> str | None:
    """A letter: `Z` where it has ended and nobody has asked how."""
    return next(iter(_stat(Path(f"/proc/{pid}"))), None)


def _stat(folder: Path) -> list[str]:
    """State, parent and more of a process; nothing where it has ended."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_whole(folder: Path) -> bool:
    """Whether the last checkpoint can be read, if there is one."""
    checkpoints = Checkpoints(folder)
    return not checkpoints.exists() or checkpoints.load()["place"]["step"] == last_step(folder)


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, bit for bit, and the same log, line for line."""
    first, second = (Checkpoints(folder).load()["steps"] for folder in (one, other))
    for state, again in zip(first, second, strict=True):
        assert state.keys() == again.keys()
        assert all(torch.equal(state[key], again[key]) for key in state)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
