"""Several processes that share the runs of one command, killed and stopped: each run is the one of a single process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from contrex.records import read_run
from survival.command import assert_same_run, last_step

RECIPES = ("digits_cross_entropy", "digits_cgc")
RUNS = [f"{recipe}-seed{seed}" for recipe in RECIPES for seed in (0, 1)]
EPOCHS, STEPS = 8, 16
SLOW = 1200
"""Seconds after which a command of four runs hangs, also where others use the machine."""
OPTIONS = (
    *("--seeds", "2", "--training.epochs", str(EPOCHS), "--training.checkpoint-minutes", "0"),
    *("--data.num-train", str(16 * STEPS), "--data.num-val", "32", "--data.num-test", "20"),
    *("--data.image-size", "32", "--data.digit-size", "14", "18", "--training.batch-size", "16"),
    *("--training.device", "cpu", "--evaluation.device", "cpu", "--evaluation.metrics", "top1", "content_heatmap"),
    *("--evaluation.num-bootstrap", "20", "--evaluation.gallery", "2"),
)

pytestmark = pytest.mark.survival


def start(folder, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "contrex", "train", *RECIPES, "--folder", str(folder), *OPTIONS, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process):
    """What a command that comes to its end has said."""
    _, said = process.communicate(timeout=SLOW)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    finished(start(folder))
    return folder


def assert_same_experiment(one, other):
    for name in RUNS:
        assert_same_run(one / name, other / name)
        first, second = (read_run(folder / name / "evaluation-test") for folder in (one, other))
        assert first.record.metrics == second.record.metrics
        assert first.samples == second.samples
    assert [path.name for path in other.glob("*.html")] == ["report.html"]


def times_begun(*said):
    """How often each run was taken by one of the processes."""
    return Counter(name for text in said for name in re.findall(r"(digits_\w+-seed\d), run \d of 4", text))


def wait_for(condition, *processes):
    deadline = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_two_commands_share_their_runs(tmp_path, alone):
    first, second = start(tmp_path), start(tmp_path)
    said = [finished(first), finished(second)]
    assert times_begun(*said) == dict.fromkeys(RUNS, 1)
    assert all(times_begun(text) for text in said)
    assert_same_experiment(alone, tmp_path)


def working(folder, *numbers):
    """The runs that are in the middle, by the process that has them; those of `numbers` only, where some are given."""
    found = {}
    for run in RUNS:
        if 0 < last_step(folder / run) < EPOCHS * STEPS:
            found[int((folder / run / "lock").read_text().split()[1])] = run
    return {number: run for number, run in found.items() if number in (numbers or found)}


def test_a_command_joins_one_that_is_at_work(tmp_path, alone):
    first = start(tmp_path)
    wait_for(lambda: working(tmp_path), first)
    second = start(tmp_path)
    assert times_begun(finished(first), finished(second)) == dict.fromkeys(RUNS, 1)
    assert_same_experiment(alone, tmp_path)


def test_the_run_of_one_that_is_killed_is_taken_over(tmp_path, alone):
    first, second = start(tmp_path), start(tmp_path)
    wait_for(lambda: len(working(tmp_path, first.pid, second.pid)) == 2, first, second)
    lost = working(tmp_path, first.pid)[first.pid]
    first.kill()
    _, said = first.communicate()
    begun = times_begun(said, finished(second))
    assert begun == {**dict.fromkeys(RUNS, 1), lost: 2}
    assert_same_experiment(alone, tmp_path)


def test_jobs_share_the_runs(tmp_path, alone):
    said = finished(start(tmp_path, "--jobs", "2"))
    assert times_begun(said) == dict.fromkeys(RUNS, 1)
    assert {line[:3] for line in said.splitlines() if ", run " in line} == {"[1]", "[2]"}
    assert_same_experiment(alone, tmp_path)


def test_a_job_that_is_killed_leaves_its_run_to_the_others(tmp_path, alone):
    process = start(tmp_path, "--jobs", "2")
    wait_for(lambda: len(working(tmp_path)) == 2, process)
    os.kill(next(iter(working(tmp_path))), signal.SIGKILL)
    said = finished(process)
    assert re.search(r"job \d ended early, with exit code -9", said)
    assert_same_experiment(alone, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_jobs_end_with_the_command_and_are_continued(tmp_path, alone, number):
    process = start(tmp_path, "--jobs", "2")
    wait_for(lambda: len(working(tmp_path)) == 2, process)
    jobs = working(tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"stopped by {signal.Signals(number).name}; the same command with --resume continues" in said
    wait_for(lambda: not any(Path(f"/proc/{job}").exists() for job in jobs))
    assert all(0 < last_step(tmp_path / run) < EPOCHS * STEPS for run in jobs.values())
    finished(start(tmp_path, "--resume", "--jobs", "2"))
    assert_same_experiment(alone, tmp_path)


def test_a_job_that_fails_ends_the_command(tmp_path):
    process = start(tmp_path, "--jobs", "2", "--optimizer.lr", "1e30", "--optimizer.clip-norm", "None")
    _, said = process.communicate(timeout=SLOW)
    assert process.returncode == 3, said
    assert re.search(r"contrex: job \d has stopped: .* became NaN or infinite", said)
