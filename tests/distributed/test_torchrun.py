"""The real thing: torchrun, signals and kill -9, two processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contrex.records import read_run
from contrex.training import read_log
from contrex.training.checkpoint import Checkpoints

TRIALS = int(os.environ.get("CONTREX_KILLS", "3"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
COMMAND = [
    *("contrex", "train", "digits_cgc", "--no-evaluate", "--training.device", "cpu", "--evaluation.device", "cpu"),
    *("--data.num-train", "640", "--data.num-val", "33", "--data.num-test", "70", "--training.epochs", "3"),
    *("--training.batch-size", "16", "--training.checkpoint-minutes", "0", "--method.queue", "32"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(folder, *more):
    resume = ["--resume"] if (folder / "recipe.json").is_file() else []
    words = [*TORCHRUN, *COMMAND, "--folder", str(folder), *resume, *more]
    return subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(folder, *more):
    process = start(folder, *more)
    output, error = process.communicate()
    assert process.returncode == 0, error
    return output, error


def steps_done(folder):
    checkpoints = Checkpoints(folder)
    return checkpoints.load()["place"]["step"] if checkpoints.exists() else 0


def wait_for(folder, step, process):
    deadline = time.monotonic() + 120
    while steps_done(folder) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be stopped: give it more epochs"


def workers_of(process):
    """The processes that torchrun started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(word) for word in found if b"contrex" in Path(f"/proc/{word}/cmdline").read_bytes()]


def assert_same_run(one, other):
    first, second = (Checkpoints(folder).load()["steps"][0] for folder in (one, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun") / "straight"
    output, error = finish(folder)
    assert output == f"trained: {folder}\n", "the first process prints, and it alone"
    assert error.count("epoch 3/3, validation top-1") == 1
    assert "Warning" not in error
    return folder


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_a_run_that_is_resumed_exactly(straight, tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path, 5, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert error.count("contrex: stopped by SIGTERM after step") == 2
    assert "torchrun --nproc-per-node 2 -m contrex train" in error
    assert 'Traceback (most recent call last):\n  File "/work' not in error.replace("torch/distributed", "")
    finish(tmp_path)
    assert_same_run(straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_processes_take_the_others_along_and_are_resumed_exactly(straight, tmp_path, workers):
    """Each time one of the two dies at a random moment: torchrun ends, and the next start goes on."""
    rng, before = random.Random(int(workers)), 0
    for _ in range(TRIALS):
        process = start(tmp_path, "--training.workers", workers)
        wait_for(tmp_path, before + 1, process)
        time.sleep(rng.uniform(0, 1.5))
        os.kill(rng.choice(workers_of(process)), signal.SIGKILL)
        process.communicate(timeout=90)
        assert process.returncode != 0
        before = steps_done(tmp_path)
    finish(tmp_path, "--training.workers", workers)
    assert_same_run(straight, tmp_path)
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == list(range(1, 121))
    print(f"{TRIALS} kills of one of 2 processes, {TRIALS} survived, 0 lost (workers {workers})")


@pytest.mark.slow
def test_evaluate_on_two_processes_is_evaluate_on_one(straight, tmp_path):
    words = ["contrex", "evaluate", str(straight), "--device", "cpu", "--split", "test", "--output"]
    commands = {"two": TORCHRUN, "one": [sys.executable, "-m"]}
    for name, launcher in commands.items():
        found = subprocess.run(
            [*launcher, *words, str(tmp_path / name)], check=False, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.count("record: ") == 1
    one, two = (read_run(tmp_path / name) for name in ("one", "two"))
    assert one.record.metrics == two.record.metrics
    assert one.record.profiles == two.record.profiles
    assert one.samples == two.samples
