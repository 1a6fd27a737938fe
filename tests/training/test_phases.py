"""Runs of two phases: order, what moves when, resuming anywhere, and the pictures they leave."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.methods import ClassifierStep, ExConStep, Shown, Step, SupConStep
from contrex.settings import Augmentation, ExCon, LinearClassifier, Optimizer, SupCon
from contrex.training import curves, load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.contact_sheet import CELL, GAP, LEFT, RIGHT, TOP, WRONG, contact_sheet
from training.runs import quiet, tiny

METHODS = {
    "exconb": ExCon(background=True, starting_epoch=1),
    "supcon_ori": SupCon(
        order="encoder-first", classifier=LinearClassifier(Optimizer(lr=0.5), views="plain", cache_features=True)
    ),
}


def recipe_of(name, **training):
    colours = Augmentation(scale=(0.4, 1.0), color_jitter=(0.4, 0.4, 0.4, 0.1), grayscale=0.2, where="device")
    return replace(tiny(**training), method=METHODS[name], augmentation=colours)


@pytest.fixture(
    scope="module",
    params=["exconb", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "exconb")],
)
def straight(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    train(recipe_of(request.param), folder, console=quiet())
    return request.param, folder


def state(folder):
    steps = Checkpoints(folder).load()["steps"]
    return {f"{number}.{name}": value for number, step in enumerate(steps) for name, value in step.items()}


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("step", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_in_either_phase_and_resumed(straight, tmp_path, monkeypatch, step):
    name, folder = straight
    calls = []

    def counted(forward):
        def failing(self, batch):
            calls.append(1)
            if len(calls) == step + 1:
                raise Killed
            return forward(self, batch)

        return failing

    with monkeypatch.context() as patch:
        for kind in (ExConStep if name == "exconb" else SupConStep, ClassifierStep):
            patch.setattr(kind, "forward", counted(kind.forward))
        with pytest.raises(Killed):
            train(recipe_of(name, checkpoint_minutes=0.0), tmp_path, console=quiet())
    train(recipe_of(name), tmp_path, resume=True, console=quiet())
    first, second = state(folder), state(tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()


def test_each_phase_logs_its_own_terms(straight):
    name, folder = straight
    log = read_log(folder)
    phases = ["e" if "encoder_loss" in line else "c" if "classifier_loss" in line else "v" for line in log]
    turns = {"exconb": "eeecccveeecccv", "supcon_ori": "eeeeeecccvcccv"}[name]
    assert "".join(phases) == turns
    assert all(("encoder_lr" in line) == ("encoder_loss" in line) for line in log)
    found = curves(folder)
    assert not [name for name in found if name.endswith("lr")]
    assert [epoch for epoch, _ in found["val_top1"]] == {"exconb": [1, 2], "supcon_ori": [3, 4]}[name]
    assert ("encoder_explained" in found) == (name == "exconb")


def test_each_phase_moves_what_is_its_own(tmp_path, monkeypatch):
    seen = []

    def watched(kind):
        def forward(self, batch, forward=kind.forward):
            weights = self.network.fc.weight, self.network.features[0][0].weight
            seen.append((kind, *(weight.detach().clone() for weight in weights)))
            return forward(self, batch)

        return forward

    for kind in (SupConStep, ClassifierStep):
        monkeypatch.setattr(kind, "forward", watched(kind))
    train(replace(recipe_of("exconb"), method=SupCon()), tmp_path, console=quiet())
    for (kind, head, encoder), (_, next_head, next_encoder) in itertools.pairwise(seen):
        assert torch.equal(head, next_head) == (kind is SupConStep)
        assert torch.equal(encoder, next_encoder) == (kind is ClassifierStep)


def test_a_trained_classifier_is_the_whole_network(straight):
    _name, folder = straight
    _, classifier, _ = load_trained(folder)
    assert not classifier.network.training
    assert all(parameter.requires_grad for parameter in classifier.network.parameters())
    found = state(folder)
    for key, value in classifier.network.state_dict().items():
        assert torch.equal(value, found[f"0.network.{key}"])
        assert torch.equal(value, found[f"1.network.{key}"])


def test_a_sheet_for_each_epoch_of_the_encoder(straight):
    _, folder = straight
    sheets = sorted(path.name for path in (folder / "views").iterdir())
    assert sheets == ["epoch-0001.png", "epoch-0002.png"]
    with Image.open(folder / "views" / sheets[1]) as sheet:
        assert sheet.width == LEFT + 8 * (CELL + GAP)


def test_the_sheet_shows_views_and_verdicts():
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    sheet = np.asarray(contact_sheet(Shown({"image": images, "masked": 1 - images}, is_right=[True, False])))
    middle = CELL // 2
    colours = [sheet[TOP + row * (CELL + GAP) + middle, LEFT + column * (CELL + GAP) + middle, 0]
               for row in range(2) for column in range(2)]  # fmt: skip
    assert colours == [0, 255, 255, 0]
    frames = [sheet[TOP + CELL + GAP - 1, LEFT + column * (CELL + GAP) + 5] for column in range(2)]
    assert [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in frames] == [RIGHT, WRONG]


def test_other_methods_have_no_sheet(tmp_path):
    train(tiny(epochs=1), tmp_path, console=quiet())
    assert not (tmp_path / "views").exists()
    assert Step.shown is not SupConStep.shown
