"""kill -9 at random moments, through the real command, until the run is done: the weights of an uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from contrex.training.checkpoint import Checkpoints

TRIALS = int(os.environ.get("CONTREX_KILLS", "3"))
COMMAND = [
    *(sys.executable, "-m", "contrex", "train", "digits_cgc", "--no-evaluate", "--training.device", "cpu"),
    *("--data.num-train", "640", "--data.num-val", "32", "--data.num-test", "8", "--training.epochs", "3"),
    *("--training.batch-size", "16", "--training.checkpoint-minutes", "0", "--method.queue", "32"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(folder, *more):
    resume = ["--resume"] if (folder / "recipe.json").is_file() else []
    return subprocess.Popen(
        [*COMMAND, "--folder", str(folder), *resume, *more],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder, *more):
    process = start(folder, *more)
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()


def steps_done(folder):
    checkpoints = Checkpoints(folder)
    return checkpoints.load()["place"]["step"] if checkpoints.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_runs_end_with_the_weights_of_an_uninterrupted_one(tmp_path, workers):
    """Each kill comes at a random moment after the run has moved on, also in the middle of writing a checkpoint."""
    rng = random.Random(int(workers))
    finish(tmp_path / "straight")
    killed, before = tmp_path / "killed", 0
    for _ in range(TRIALS):
        process = start(killed, "--training.workers", workers)
        deadline = time.monotonic() + 120
        while steps_done(killed) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        assert process.poll() is None, "the run ended before it could be killed: give it more epochs"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        before = steps_done(killed)
        assert before > 0
    finish(killed, "--training.workers", workers)
    first, second = (Checkpoints(folder).load()["steps"][0] for folder in (tmp_path / "straight", killed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    logs = [(folder / "metrics.jsonl").read_bytes() for folder in (tmp_path / "straight", killed)]
    assert logs[0] == logs[1]
    print(f"{TRIALS} kills, {TRIALS} survived, 0 lost (workers {workers})")


@pytest.mark.slow
def test_sigterm_through_the_real_command(tmp_path):
    process = start(tmp_path)
    while steps_done(tmp_path) < 5 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"stopped by SIGTERM after step" in error
    assert b"--resume" in error
    assert steps_done(tmp_path) >= 5
