"""The numbers of a run also go where `training.loggers` says, and a logger that fails takes nothing with it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from dataclasses import replace

import pytest

from contrex.errors import ArgumentError, UnknownNameError
from contrex.training import Logger, read_log, train
from contrex.training.loggers import LoggerMissingError, Loggers, MLflowLogger, WandbLogger, logger_class
from training.runs import Killed, quiet, stopped_and_resumed, tiny, varied

FILE = """
from contrex.training import Logger

class Kept(Logger):
    made = []

    def __init__(self, folder, recipe, step):
        super().__init__(folder, recipe, step)
        self.made.append(self)
        self.lines, self.closed = [], 0

    def write(self, step, values):
        self.lines.append((step, values))

    def close(self):
        self.closed += 1

class Broken(Kept):
    def write(self, step, values):
        super().write(step, values)
        raise OSError("the service is away")
"""


class Calls:
    """Stands for a module or what it makes: records every call, and gives what `returns` has for it."""

    def __init__(self, returns=()):
        self.made, self.returns = [], dict(returns)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            self.made.append((name, args, options))
            return self.returns.get(name)

        return call


@pytest.fixture
def stub(monkeypatch):
    """Put a package in the place of one that is not installed."""

    def put(name, calls):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__getattr__ = calls.__getattr__
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return put


def test_a_logger_of_ones_own_gets_the_lines_of_the_log(tmp_path, monkeypatch):
    """And so does the next one when the first one fails, which is told once; the run goes on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.py").write_text(FILE)
    console = quiet()
    train(tiny(loggers=("kept.py:Broken", "kept.py:Kept")), tmp_path / "run", console=console)
    broken, kept = logger_class("kept.py:Kept").made
    lines = [(line.pop("step"), line) for line in read_log(tmp_path / "run")]
    assert kept.lines == lines
    assert len(lines) == 8  # three steps and an end, of two epochs
    assert kept.closed == 1
    assert (kept.folder, kept.step, kept.recipe.name) == (tmp_path / "run", 0, "tiny")
    assert broken.lines == lines[:1]
    told = " ".join(console.file.getvalue().split())
    assert told.count("logger kept.py:Broken fails and is left out: OSError: the service is away") == 1


@pytest.mark.slow
def test_a_resumed_run_says_where_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resumed.py").write_text(FILE)
    stopped_and_resumed(tiny(loggers=("resumed.py:Kept",)), tmp_path, steps=[4])
    straight, killed, resumed = logger_class("resumed.py:Kept").made
    assert (killed.step, resumed.step) == (0, 4)
    assert killed.closed == 1
    assert [line for line in killed.lines if line[0] <= 4] + resumed.lines == straight.lines
    train(varied(tiny(), loggers=()), tmp_path / "straight", resume=True, console=quiet())  # no other recipe


def test_what_is_no_logger_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UnknownNameError, match=r"`training.loggers`.*tensorboard.*'tensorbord'"):
        train(tiny(loggers=("tensorbord",)), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run" / "recipe.json").exists()
    with pytest.raises(ArgumentError, match=r"must name subclasses of contrex\.training\.Logger, got 'pathlib:Path'"):
        logger_class("pathlib:Path")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(WandbLogger, "needs", ("no_such_package", "wandb"))
    with pytest.raises(LoggerMissingError, match=r"wandb needs no_such_package: pip install 'contrex\[wandb\]'"):
        logger_class("wandb")


def test_wandb_is_asked_for_one_run_for_all_starts(tmp_path, stub):
    run = Calls()
    wandb = stub("wandb", Calls({"init": run}))
    for step in (0, 5):
        logger = logger_class("wandb")(tmp_path, tiny(), step)
        logger.write(step + 1, {"loss": 0.5})
        logger.close()
    (_, _, first), (_, _, second) = wandb.made
    assert first == second
    assert first["config"]["training"]["epochs"] == 2
    assert (first["name"], first["resume"], len(first["id"])) == (tmp_path.name, "allow", 32)
    assert run.made == [
        *(("log", ({"loss": 0.5},), {"step": 1}), ("finish", (), {})),
        *(("log", ({"loss": 0.5},), {"step": 6}), ("finish", (), {})),
    ]


def test_mlflow_goes_on_with_the_run_that_it_began(tmp_path, stub):
    begun = types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))
    mlflow = stub("mlflow", Calls({"start_run": begun}))
    for step in (0, 5):
        logger = logger_class("mlflow")(tmp_path, tiny(), step)
        logger.write(step + 1, {"loss": 0.5})
        logger.close()
    names = [name for name, *_ in mlflow.made]
    assert names == ["start_run", "log_params", "log_metrics", "end_run", "start_run", "log_metrics", "end_run"]
    assert mlflow.made[0] == ("start_run", (), {"run_name": tmp_path.name})
    assert mlflow.made[1][1][0]["training.epochs"] == "2"
    assert mlflow.made[4] == ("start_run", (), {"run_id": "abc"})
    assert mlflow.made[5] == ("log_metrics", ({"loss": 0.5},), {"step": 6})
    assert isinstance(logger, MLflowLogger)


def test_what_stops_a_run_closes_the_loggers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stopped.py").write_text(FILE)

    def stop(done, total):
        raise Killed

    with pytest.raises(Killed):
        train(tiny(loggers=("stopped.py:Kept",)), tmp_path / "run", console=quiet(), on_step=stop)
    assert [one.closed for one in logger_class("stopped.py:Kept").made] == [1]


def test_without_names_there_are_no_loggers():
    loggers = Loggers()
    loggers.write({"step": 1, "loss": 0.5})
    loggers.close()
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(LoggerMissingError, match=r"tensorboard needs tensorboard: pip install"):
            logger_class("tensorboard")
    else:
        assert issubclass(logger_class("tensorboard"), Logger)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="pip install tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_numbers_of_the_log(tmp_path):
    """Of a run that was killed and resumed, too: what came twice is there once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped_and_resumed(replace(tiny(loggers=("tensorboard",)), name="shown"), tmp_path, steps=[4])
    for run in ("straight", "4"):
        found = EventAccumulator(str(tmp_path / run / "tensorboard"))
        found.Reload()
        expected = {}
        for line in read_log(tmp_path / run):
            for name, value in line.items():
                if name != "step":
                    expected.setdefault(name, []).append((line["step"], value))
        shown = {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}
        assert shown.keys() == expected.keys()
        for name, values in expected.items():
            assert [step for step, _ in shown[name]] == [step for step, _ in values]
            assert [value for _, value in shown[name]] == pytest.approx([value for _, value in values], rel=1e-6)
