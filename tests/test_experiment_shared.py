"""An experiment that several processes share: what each takes, leaves and waits for."""

import io
import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from contrex import experiment
from contrex.errors import ArgumentError
from contrex.experiment import run_experiment
from contrex.records import read_run
from contrex.settings import Evaluation
from contrex.training.jobs import environments, jobs_for_small_runs
from contrex.training.lock import locked
from training.runs import quiet, tiny, varied

OPTIONS = Evaluation(("top1",), split="test", num_bootstrap=20, device="cpu")
RECIPES = [varied(replace(tiny(epochs=1), evaluation=OPTIONS), seed=seed) for seed in (0, 1, 2)]
RUNS = ["tiny-seed0", "tiny-seed1", "tiny-seed2"]

experiment_of = partial(run_experiment, splits=["test"], title="t")


class Elsewhere:
    """Another process, for which a thread will do: it holds the locks of runs until it is told to let go."""

    def __init__(self, *runs):
        self._begun, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=runs)
        self._thread.start()
        self._begun.wait()

    def _hold(self, *runs):
        with ExitStack() as stack:
            for run in runs:
                stack.enter_context(locked(run))
            self._begun.set()
            self._end.wait()

    def let_go(self):
        self._end.set()
        self._thread.join()


def test_what_another_works_on_is_left_and_waited_for(tmp_path, monkeypatch):
    trained, waited, said = [], [], io.StringIO()
    module = experiment.sharing
    real = module.train
    monkeypatch.setattr(
        experiment.sharing, "train", lambda r, run, **k: (trained.append(run.name), real(r, run, **k))[1]
    )
    other = Elsewhere(tmp_path / RUNS[0], tmp_path / RUNS[1])

    def sleep(_):
        assert trained == [RUNS[2]]
        waited.append(1)
        if len(waited) == 3:  # the other is killed
            other.let_go()

    monkeypatch.setattr(experiment.sharing.time, "sleep", sleep)
    (report,) = experiment_of(RECIPES, tmp_path, console=Console(file=said))
    assert trained == [RUNS[2], *RUNS[:2]]
    assert len(waited) == 3
    assert [run.record.name for run in report.runs] == RUNS
    lines = said.getvalue().splitlines()
    assert lines.count("waiting for 2 runs that other processes work on") == 1
    assert [line for line in lines if "run " in line] == [f"{RUNS[n]}, run {n + 1} of 3" for n in (2, 0, 1)]


def test_what_another_has_done_is_not_done_again(tmp_path, monkeypatch):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    (expected,) = experiment_of(RECIPES, alone, console=quiet())
    other = Elsewhere(shared / RUNS[0])
    experiment_of(RECIPES[1:2], shared, console=quiet())

    def sleep(_):
        other.let_go()
        experiment_of(RECIPES[:1], shared, console=quiet())
        monkeypatch.setattr(experiment.sharing, "train", lambda *_, **__: pytest.fail("trained again"))

    monkeypatch.setattr(experiment.sharing.time, "sleep", sleep)
    (found,) = experiment_of(RECIPES, shared, console=quiet())
    for one, other_one in zip(found.runs, expected.runs, strict=True):
        assert one.record.metrics == other_one.record.metrics
        assert one.samples == other_one.samples
    assert found.report.is_file()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    experiment_of(RECIPES[:1], folder, console=quiet())
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        lambda recipe: replace(recipe, evaluation=replace(recipe.evaluation, contrast="mean")),
        lambda recipe: replace(recipe, optimizer=replace(recipe.optimizer, lr=0.01)),
        lambda recipe: replace(recipe, evaluation=replace(recipe.evaluation, checkpoint="best")),
    ],
)
def test_a_run_is_done_only_as_it_was_asked_for(done, changed):
    recipe, run = RECIPES[0], done / RUNS[0]
    assert experiment.sharing.finished(run, recipe, recipe.evaluation) == run / "evaluation-test"
    other = changed(recipe)
    assert experiment.sharing.finished(run, other, other.evaluation) is None
    workers = replace(recipe, evaluation=replace(recipe.evaluation, workers=2))
    assert experiment.sharing.finished(run, workers, workers.evaluation) == run / "evaluation-test"


def test_a_run_that_has_not_ended_or_has_other_weights_is_not_done(done, tmp_path):
    recipe, run = RECIPES[0], done / RUNS[0]
    index = run / "checkpoints" / "index.json"
    text = index.read_text()
    try:
        for told, other in (('"finished": true', '"finished": false'), (read_file(run), "step-00000003-00000000.pt")):
            index.write_text(text.replace(told, other))
            assert told in text
            assert experiment.sharing.finished(run, recipe, recipe.evaluation) is None
    finally:
        index.write_text(text)
    assert experiment.sharing.finished(tmp_path / "none", recipe, recipe.evaluation) is None


def read_file(run):
    return read_run(run / "evaluation-test").record.configuration["checkpoint"]["file"]


def test_how_gpus_and_threads_are_shared():
    def dealt(jobs, name, **machine):
        return [own.get(name) for own in environments(jobs, **{"num_threads": 1, "visible": None, **machine})]

    assert dealt(3, "CUDA_VISIBLE_DEVICES", num_gpus=2) == ["0", "1", "0"]
    assert dealt(2, "CUDA_VISIBLE_DEVICES", num_gpus=1) == [None, None]
    assert dealt(2, "CUDA_VISIBLE_DEVICES", num_gpus=0, visible="") == [None, None]
    assert dealt(2, "CUDA_VISIBLE_DEVICES", num_gpus=2, visible="MIG-a,MIG-b,MIG-c") == ["MIG-a", "MIG-b"]
    assert dealt(3, "OMP_NUM_THREADS", num_gpus=0, num_threads=8) == ["2"] * 3
    assert dealt(3, "OMP_NUM_THREADS", num_gpus=0, num_threads=2) == ["1"] * 3


@pytest.mark.parametrize(("threads", "has_gpu", "jobs"), [(1, False, 1), (2, False, 3), (8, False, 12), (8, True, 1)])
def test_small_runs_keep_a_cpu_busy(threads, has_gpu, jobs, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert jobs_for_small_runs() == jobs


def test_jobs_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"`jobs` must be at least 1, got 0"):
        experiment_of(RECIPES, tmp_path, console=quiet(), jobs=0)
    monkeypatch.setattr(experiment.sharing.ranks, "world_size", lambda: 2)
    with pytest.raises(ArgumentError, match=r"`jobs` 2 is for single processes, and torchrun started 2"):
        experiment_of(RECIPES, tmp_path, console=quiet(), jobs=2)
    assert not os.listdir(tmp_path)  # noqa: PTH208
