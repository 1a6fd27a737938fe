"""kill -9 inside the writing of a checkpoint: whatever was being written, the last one can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

TRIALS = int(os.environ.get("CONTREX_WRITE_KILLS", "50"))

pytestmark = pytest.mark.survival

WRITE_FOR_EVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from contrex.training.checkpoint import Checkpoints

torch.set_num_threads(1)
rng, folder, wanted = random.Random(0), Path(sys.argv[1]), int(sys.argv[2])
content = {"w": torch.zeros(1_000_000)}


def write_for_ever(run, step):
    while True:
        step += 1
        Checkpoints(run).save({**content, "step": step}, step=step, best=step % 3 == 0)


def write_once_and_die_at(run, number):
    # SIGKILL instead of operation `number`; a write is killed half done
    done, opened = [], Path.open

    def dying(act, name):
        def counted(*arguments, **options):
            done.append(name)
            if len(done) == number:
                if name == "write":
                    act(arguments[0][: len(arguments[0]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments, **options)

        return counted

    def open_counted(path, mode="r", *rest, **more):
        stream = opened(path, mode, buffering=0) if mode == "wb" else opened(path, mode, *rest, **more)
        if mode == "wb":
            class Counted:
                def __enter__(self): return self
                def __exit__(self, *_): stream.close()
                write = staticmethod(dying(stream.write, "write"))
                flush = staticmethod(stream.flush)
                fileno = staticmethod(stream.fileno)
            return Counted()
        return stream

    os.fsync, Path.replace = dying(os.fsync, "fsync"), dying(Path.replace, "replace")
    Path.unlink, Path.open = dying(Path.unlink, "unlink"), open_counted
    Checkpoints(run).save({**content, "step": 2}, step=2, best=True)
    os._exit(0)


def child(act, *arguments):
    pid = os.fork()
    if pid == 0:
        act(*arguments)
    return pid


def index(run):
    return json.loads((run / "checkpoints/index.json").read_text())


def debris(run):
    named = {entry["file"] for entry in index(run).values()}
    return {path.name for path in (run / "checkpoints").iterdir()} - named - {"index.json"}


def loads(run):
    try:
        return Checkpoints(run).load()["step"] == index(run)["last"]["step"]
    except Exception as error:
        print(error, file=sys.stderr)
        return False


random_moments, run, step = [], folder / "random", 0
Checkpoints(run).save({**content, "step": 0}, step=0, best=True)
while len(random_moments) < wanted:
    pid = child(write_for_ever, run, step)
    time.sleep(rng.uniform(0.02, 0.2))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if debris(run):  # it was inside: something is there that the index does not name
        random_moments.append(loads(run))
    step = Checkpoints(run).load()["step"]

each_operation = []
for number in range(1, 100):
    run = folder / f"operation-{number}"
    Checkpoints(run).save({**content, "step": 1}, step=1, best=True)
    pid = child(write_once_and_die_at, run, number)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    each_operation.append(loads(run))
print(json.dumps([random_moments, each_operation]))
"""


def test_killed_inside_the_write(tmp_path, tally):
    words = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), str(TRIALS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, timeout=900)
    at_random, at_each = json.loads(done.stdout)
    with tally.counting("kill -9 inside the writing of a checkpoint, at a random moment") as outcomes:
        outcomes.extend(at_random)
    with tally.counting("kill -9 at each write, sync, rename and removal of a checkpoint") as outcomes:
        outcomes.extend(at_each)
    assert len(at_random) >= TRIALS
    assert len(at_each) >= 10
    assert all(at_random + at_each), done.stderr
