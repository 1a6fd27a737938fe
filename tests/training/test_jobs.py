"""Processes that share one work: how they end, and what is said about it."""

import io
import os
import signal
import threading
import time
from functools import partial

import pytest
from rich.console import Console

from contrex.errors import InterruptedRunError, ProcessError
from contrex.training.jobs import spread
from training.runs import at_work

pytestmark = pytest.mark.slow  # each starts two processes, which load torch


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    for file in tmp_path.glob("*.job"):  # none outlives `spread`
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def spread_over_two(folder, end):
    said = io.StringIO()
    try:
        spread(partial(at_work, folder=folder, end=end), 2, console=Console(file=said, width=200))
    finally:
        assert len(list(folder.glob("*.job"))) == 2
    return said.getvalue()


def test_work_that_ends_says_nothing_and_its_lines_are_numbered(folder, capfd):
    assert spread_over_two(folder, "well") == ""
    assert sorted(capfd.readouterr().err.splitlines()) == ["[1] at work", "[2] at work"]


@pytest.mark.parametrize(
    ("end", "message", "exit_code"),
    [("fails", r"job \d has stopped: the loss became NaN", 3), ("breaks", r"job \d has stopped: ZeroDivision", 1)],
)
def test_one_that_fails_ends_the_other_and_gives_its_exit_code(folder, end, message, exit_code):
    with pytest.raises(ProcessError, match=message) as caught:
        spread_over_two(folder, end)
    assert caught.value.exit_code == exit_code


def test_one_that_is_killed_does_not_end_the_other(folder):
    said = spread_over_two(folder, "dies")
    assert "ended early, with exit code -9" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(folder, number):
    def send():
        while len(list(folder.glob("*.job"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    message = rf"stopped by {signal.Signals(number).name}; the same command with --resume continues"
    with pytest.raises(InterruptedRunError, match=message) as caught:
        spread_over_two(folder, "stopped")
    assert caught.value.exit_code == 128 + number
