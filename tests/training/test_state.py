"""A run by value: what checkpoints of before hold goes on, and what is no run's is refused by name."""

import copy
from unittest import mock

import pytest
import torch

from contrex.errors import CheckpointError
from contrex.methods.cgc import CGCStep
from contrex.records import to_plain
from contrex.training import load_trained, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.state import REQUIRED, RunState
from training.runs import Killed, assert_same, quiet, tiny, varied

KEYS = {
    "steps", "optimizers", "averages", "place", "epochs", "finished", "explains", "recipe", "classes", "num_images",
    "num_unlabelled", "labelled_sha256", "world_size", "torch",
}  # fmt: skip
"""What commit 96e6fa6 wrote, beside the schema version and the version of contrex."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run from beginning to end, and what is left of one that died in its fifth step."""
    folder, forward, calls = tmp_path_factory.mktemp("runs"), CGCStep.forward, []

    def dying(self, batch):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return forward(self, batch)

    train(tiny(ema=0.8), folder / "straight", console=quiet())
    with mock.patch.object(CGCStep, "forward", dying), pytest.raises(Killed):
        train(varied(tiny(ema=0.8), checkpoint_minutes=0.0), folder / "died", console=quiet())
    return folder


def by_hand(content):
    """The content that the contrex of before wrote of the same run: a literal, so that no name can change unseen."""
    return {
        "steps": [dict(content["steps"][0])],
        "optimizers": [
            {"state": content["optimizers"][0]["state"], "param_groups": content["optimizers"][0]["param_groups"]}
        ],
        "averages": dict(content["averages"]),
        "place": {"epoch": 1, "phase": 0, "batch": 1, "step": 4, "best": content["place"]["best"]},
        "epochs": 2,
        "finished": False,
        "explains": ["features, 8 x 8"],
        "recipe": to_plain(tiny(ema=0.8)),
        "classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "num_images": 26,
        "num_unlabelled": 0,
        "labelled_sha256": None,
        "world_size": 1,
        "torch": "2.4.0",
    }


@pytest.mark.parametrize(
    "late", [set(), KEYS - set(REQUIRED) - {"optimizers", "averages"}], ids=["all", "the first ones"]
)
def test_a_checkpoint_of_before_goes_on_bit_for_bit(runs, tmp_path, late):
    """In the names of before, and without those that came later than the others."""
    died = Checkpoints(runs / "died").load()
    assert died.keys() - {"schema_version", "contrex"} == KEYS
    content = {name: value for name, value in by_hand(died).items() if name not in late}
    Checkpoints(tmp_path).save(content, step=4, best=False)
    assert load_trained(tmp_path)[0] == tiny(ema=0.8)
    train(tiny(ema=0.8), tmp_path, resume=True, console=quiet())
    found, expected = (Checkpoints(folder).load() for folder in (tmp_path, runs / "straight"))
    assert_same(found, expected)


def test_a_state_goes_to_a_checkpoint_and_back(runs):
    content = Checkpoints(runs / "died").load()
    again = RunState.from_checkpoint(content).to_checkpoint()
    assert_same(again, {name: value for name, value in content.items() if name in KEYS})


@pytest.mark.parametrize("name", REQUIRED)
def test_what_every_checkpoint_has(runs, name):
    content = Checkpoints(runs / "died").load()
    del content[name]
    with pytest.raises(CheckpointError, match=f"the checkpoint has no {name}: contrex did not write it as a run's"):
        RunState.from_checkpoint(content)


@pytest.mark.parametrize("ended", [True, False])
def test_a_place_of_runs_that_ended_before_their_last_epoch(runs, ended):
    content = Checkpoints(runs / "died").load()
    place = {name: value for name, value in content["place"].items() if name != "way"}
    found = RunState.from_checkpoint({**content, "place": {**place, "ended": ended}}).place
    assert found.epoch == (content["epochs"] if ended else place["epoch"])
    assert (found.way, found.step) == (1, place["step"])


@pytest.mark.parametrize("place", [[1, 2], {"epoch": 0, "week": 1}])
def test_a_place_of_another_form(runs, place):
    content = {**Checkpoints(runs / "died").load(), "place": place}
    with pytest.raises(
        CheckpointError, match=r"`place` in the checkpoint must have batch, best, epoch, phase, scale, step, way, got"
    ):
        RunState.from_checkpoint(content)


def test_a_checkpoint_with_other_tensors_or_parameters_is_refused(runs, tmp_path):
    content = Checkpoints(runs / "died").load()
    other = copy.deepcopy(content)
    other["steps"][0]["more"] = torch.zeros(1)
    Checkpoints(tmp_path / "tensors").save(other, step=4, best=False)
    with pytest.raises(CheckpointError, match=r"the checkpoint does not fit CGCStep: .*more"):
        train(tiny(ema=0.8), tmp_path / "tensors", resume=True, console=quiet())
    for name in ("steps", "optimizers"):
        Checkpoints(tmp_path / name).save({**content, name: []}, step=4, best=False)
        with pytest.raises(CheckpointError, match=rf"the checkpoint has 0 `{name}` and the method 1 phases: train it"):
            train(tiny(ema=0.8), tmp_path / name, resume=True, console=quiet())
    other = copy.deepcopy(content)
    other["optimizers"][0]["param_groups"][0]["params"].append(99)
    Checkpoints(tmp_path / "parameters").save(other, step=4, best=False)
    with pytest.raises(
        CheckpointError, match=r"the run was started with other parameters to train \(.*\): go on with th"
    ):
        train(tiny(ema=0.8), tmp_path / "parameters", resume=True, console=quiet())
