"""How fast a run was and what it waited for, beside the log that two runs of one seed share."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from contrex.data.views.training import TrainingViews
from contrex.errors import printable
from contrex.training import loop, read_timing, timing, train
from contrex.training.log import say
from contrex.training.progress import Bar, progress_bar
from contrex.training.timing import Pace, TimingLog
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


@pytest.mark.slow
def test_slow_images_show_in_the_run(tmp_path, monkeypatch):
    read = TrainingViews.batch

    def slowly(self, positions):
        time.sleep(0.02 * len(positions))
        return read(self, positions)

    monkeypatch.setattr(timing, "num_cores", lambda: 4)
    train(tiny(), tmp_path / "fast", console=quiet())
    monkeypatch.setattr(TrainingViews, "batch", slowly)
    console = quiet()
    train(tiny(), tmp_path / "slow", console=console)
    fast, slow = (read_timing(tmp_path / name) for name in ("fast", "slow"))
    assert [(line["epoch"], line["steps"]) for line in slow] == [(0, 3), (1, 3)]
    for line, other in zip(slow, fast, strict=True):
        assert line["waited"] * line["seconds"] >= 3 * 8 * 0.02
        assert line["waited"] > other["waited"]
    told = " ".join(console.file.getvalue().split())
    assert told.count("of the time waiting for images") == 2
    assert told.count("waiting for images: more workers may help (now 0)") == 1
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
    assert bool(TimingLog(Path("run")).in_words(line, workers=0)) is bool(steps)


@pytest.mark.parametrize(("cores", "workers", "advised"), [(1, 0, False), (2, 0, True), (2, 1, False), (8, 6, True)])
def test_more_workers_are_advised_once_and_where_there_are_cores(cores, workers, advised, monkeypatch):
    monkeypatch.setattr(timing, "num_cores", lambda: cores)
    log, line = TimingLog(Path("run")), {"steps": 3, "images_per_second": 8.0, "waited": 0.75}
    waits = ", 8 images/s, 75 % of the time waiting for images"
    advice = f": more workers may help (now {workers})" if advised else ""
    assert [log.in_words(line, workers) for _ in range(2)] == [waits + advice, waits]
    assert log.in_words({**line, "waited": 0.1}, workers) == ", 8 images/s"


@pytest.mark.parametrize("name", ["[red]cgc", "[/]", "\x1b[2Jcgc"])
def test_without_a_terminal_there_are_lines_and_no_bar(name):
    """Names are shown as they are: they may come from a file."""
    console = Console(file=io.StringIO(), width=200)
    with progress_bar(name, total=3, done=0, console=console) as bar:
        bar.step({"loss": 1.0})
        say(console, f"{name}: epoch 1/1")
    tenth, end = console.file.getvalue().splitlines()
    assert re.fullmatch(rf"{re.escape(printable(name))}: 33 % \(1/3\), 0:00:00 left, loss 1\.000", tenth)
    assert end == f"{printable(name)}: epoch 1/1"
    terminal = Console(file=io.StringIO(), width=200, force_terminal=True)
    with progress_bar(name, total=3, done=0, console=terminal) as bar:
        bar.step({"loss": 1.0})
    assert printable(name) in terminal.file.getvalue()
    assert "\x1b[2J" not in terminal.file.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_tenth():
    console = Console(file=io.StringIO(), width=80)
    with progress_bar("evaluating", console=console) as bar:
        for done in (16, 32, 48, 160, 161, 400):
            bar.at(done, 400)
    lines = console.file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "evaluating: 12 % (48/400)",
        "evaluating: 40 % (160/400)",
        "evaluating: 100 % (400/400)",
    ]
    assert lines[-1].endswith(", 0:00:00 left")


LONG = "imagenet100_resnet50_cgc_no_negatives"


@pytest.mark.parametrize("name", ["digits_cgc", LONG, "größe 数字" * 9])
@pytest.mark.parametrize("width", [60, 80, 300])
def test_a_line_keeps_bar_steps_and_time_left_and_losses_give_way(name, width, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = Bar(Console(file=io.StringIO(), width=width, force_terminal=True), name, 118800, 18800)
    now[0] += 3600
    bar.at(28799, 118800)
    bar.step({"loss": 4.25, "cross_entropy": 1.5, "consistency": 2.75})
    shown, drawn, rest = bar.parts(width)
    steps = " 28800/118800 9:00:00 left"
    assert rest.startswith(steps)
    assert drawn >= 10
    assert cell_len(shown) + 1 + drawn + 1 + cell_len(rest) <= width
    assert name.startswith(shown.rstrip("… "))
    losses = "  loss 4.250  cross_entropy 1.500  consistency 2.750"
    assert losses.startswith(rest.removeprefix(steps))
    if width == 300:
        assert (shown, drawn, rest) == (name, 24, steps + losses)
    if (name, width) == ("digits_cgc", 80):
        assert (shown, drawn, rest) == (name, 24, steps + "  loss 4.250")


def test_the_terminal_shows_that_line():
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
    with progress_bar(LONG, total=118800, done=18800, console=terminal) as bar:
        bar.step({"loss": 4.25})
    last = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.file.getvalue()).split("\r")[-1].strip("\n")
    assert " 18801/118800 " in last
    assert " left" in last
    assert cell_len(last.rstrip()) <= 80
