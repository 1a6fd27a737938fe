"""How fast a run was and what it waited for, beside the log that two runs of one seed share."""

import io
import time

import pytest
from rich.console import Console

from contrex.data.views.training import TrainingViews
from contrex.errors import printable
from contrex.training import loop, read_timing, train
from contrex.training.log import progress_bar, say
from contrex.training.timing import Pace, TimingLog, in_words
from training.runs import quiet, tiny


def test_waiting_for_images_is_told_from_computing(monkeypatch):
    """A second of computing and three of waiting in two steps, on a clock that is turned by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    for _ in range(2):
        with pace.waiting():
            now[0] += 1.5
        now[0] += 0.5
    assert pace.line(7, batch_size=16) == {
        "epoch": 7,
        "steps": 2,
        "seconds": 4.0,
        "images_per_second": 8.0,
        "waited": 0.75,
    }
    assert (
        in_words(pace.line(7, 16))
        == ", 8 images/s, 75 % of the time waiting for images: more --training.workers may help"
    )


@pytest.mark.slow
def test_slow_images_show_in_the_run(tmp_path, monkeypatch):
    read = TrainingViews.__getitem__

    def slowly(self, position):
        time.sleep(0.02)
        return read(self, position)

    train(tiny(), tmp_path / "fast", console=quiet())
    monkeypatch.setattr(TrainingViews, "__getitem__", slowly)
    console = quiet()
    train(tiny(), tmp_path / "slow", console=console)
    fast, slow = (read_timing(tmp_path / name) for name in ("fast", "slow"))
    assert [(line["epoch"], line["steps"]) for line in slow] == [(0, 3), (1, 3)]
    for line, other in zip(slow, fast, strict=True):
        assert line["waited"] * line["seconds"] >= 3 * 8 * 0.02
        assert line["waited"] > other["waited"]
    assert "of the time waiting for images: more --training.workers may help" in " ".join(
        console.file.getvalue().split()
    )
    assert (tmp_path / "fast" / "metrics.jsonl").read_bytes() == (tmp_path / "slow" / "metrics.jsonl").read_bytes()


class Killed(BaseException):
    """Stands for kill -9."""


def test_a_resumed_run_has_a_line_for_each_epoch(tmp_path, monkeypatch):
    """Of an epoch that it began in the middle, the steps that it did; of one that it repeats, one line."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(tiny(checkpoint_minutes=0.0), tmp_path, console=quiet())
    assert [(line["epoch"], line["steps"]) for line in read_timing(tmp_path)] == [(0, 3)]
    train(tiny(), tmp_path, resume=True, console=quiet())
    assert [(line["epoch"], line["steps"]) for line in read_timing(tmp_path)] == [(0, 0), (1, 3)]


def test_lines_of_epochs_to_come_are_dropped(tmp_path):
    log = TimingLog(tmp_path)
    log.rewind(epoch=0)
    for epoch in (0, 1, 2):
        log.write({"epoch": epoch})
    log.rewind(epoch=1)
    assert read_timing(tmp_path) == [{"epoch": 0}]
    assert read_timing(tmp_path / "older") == []


@pytest.mark.parametrize("steps", [0, 3])
def test_an_epoch_without_steps_has_no_rate(steps):
    line = {"epoch": 0, "steps": steps, "seconds": 0.0, "images_per_second": 0.0, "waited": 0.9}
    assert bool(in_words(line)) is bool(steps)


@pytest.mark.parametrize("name", ["[red]cgc", "[/]", "\x1b[2Jcgc"])
def test_without_a_terminal_there_are_lines_and_no_bar(name):
    """Names are shown as they are: they may come from a file."""
    console = Console(file=io.StringIO(), width=200)
    with progress_bar(name, total=3, done=0, console=console) as bar:
        bar.step({"loss": 1.0})
        say(console, f"{name}: epoch 1/1")
    assert console.file.getvalue() == f"{printable(name)}: epoch 1/1\n"
    terminal = Console(file=io.StringIO(), width=200, force_terminal=True)
    with progress_bar(name, total=3, done=0, console=terminal) as bar:
        bar.step({"loss": 1.0})
    assert printable(name) in terminal.file.getvalue()
    assert "\x1b[2J" not in terminal.file.getvalue()
