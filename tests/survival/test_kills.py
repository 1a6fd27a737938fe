"""kill -9 at random steps through the real command, resumed each time: the run of one that was never killed."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from survival.command import (
    STEPS_PER_EPOCH,
    assert_same_run,
    finish,
    is_whole,
    kill_all,
    kill_one_rank,
    kill_torchrun,
    last_step,
    start,
    wait_for_step,
)

KILLS = int(os.environ.get("CONTREX_KILLS", "20"))
EPOCHS = 3 + KILLS // 2
"""Ten steps for each kill and forty more: the last comes before the end."""

pytestmark = pytest.mark.survival


def kill_points(rng):
    return sorted(rng.sample(range(1, STEPS_PER_EPOCH * (EPOCHS - 2)), KILLS))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that nothing happened to, by number of processes."""
    found = {}

    def run(ranks):
        if ranks not in found:
            found[ranks] = tmp_path_factory.mktemp(f"straight-{ranks}")
            finish(found[ranks], epochs=EPOCHS, ranks=ranks)
        return found[ranks]

    return run


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_steps(tmp_path, straight, tally, workers, ranks):
    rng = random.Random(10 * ranks + int(workers))
    named = f"{ranks} process{'es' if ranks > 1 else ''}, workers {workers}"
    with tally.counting(f"kill -9 at a random step, {named}") as outcomes:
        for step in kill_points(rng):
            process = start(tmp_path, "--training.workers", workers, epochs=EPOCHS, ranks=ranks)
            wait_for_step(process, tmp_path, step)
            time.sleep(rng.uniform(0, 0.1))
            kill_all(process)
            outcomes.append(is_whole(tmp_path))
        finish(tmp_path, "--training.workers", workers, epochs=EPOCHS, ranks=ranks)
        assert_same_run(straight(ranks), tmp_path)
    assert all(outcomes)


def test_one_of_two_processes_killed(tmp_path, straight, tally):
    """The other one ends too, with what it has waiting for it."""
    rng = random.Random(3)
    with tally.counting("kill -9 of one process of two") as outcomes:
        for step in kill_points(rng)[:: max(1, KILLS // 5)]:
            process = start(tmp_path, epochs=EPOCHS, ranks=2)
            wait_for_step(process, tmp_path, step)
            kill_one_rank(process, rng.randrange(2))
            outcomes.append(is_whole(tmp_path))
        finish(tmp_path, epochs=EPOCHS, ranks=2)
        assert_same_run(straight(2), tmp_path)
    assert all(outcomes)


def test_torchrun_killed(tmp_path, straight, tally):
    """Its processes stop after a checkpoint: they do not go on unseen, beside those of the next start."""
    rng = random.Random(4)
    with tally.counting("kill -9 of torchrun alone") as outcomes:
        for step in kill_points(rng)[:: max(1, KILLS // 5)]:
            process = start(tmp_path, epochs=EPOCHS, ranks=2)
            wait_for_step(process, tmp_path, step)
            kill_torchrun(process)
            outcomes.append(is_whole(tmp_path))
        finish(tmp_path, epochs=EPOCHS, ranks=2)
        assert_same_run(straight(2), tmp_path)
    assert all(outcomes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(tmp_path, straight, tally, number):
    """A checkpoint at the next step, 128 + the signal's number as exit code, and the command that continues."""
    rng = random.Random(number)
    with tally.counting(f"{signal.Signals(number).name} at a random step") as outcomes:
        for step in kill_points(rng)[:: max(1, KILLS // 5)]:
            process = start(tmp_path, epochs=EPOCHS)
            wait_for_step(process, tmp_path, step)
            process.send_signal(number)
            _, error = process.communicate(timeout=30)
            assert process.returncode == 128 + number
            assert f"stopped by {signal.Signals(number).name} after step {last_step(tmp_path)}" in error.decode()
            outcomes.append(is_whole(tmp_path))
        finish(tmp_path, epochs=EPOCHS)
        assert_same_run(straight(1), tmp_path)
    assert all(outcomes)
