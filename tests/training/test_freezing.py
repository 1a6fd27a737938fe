"""Runs with frozen modules through the loop: bit-identical before and after, resumed, on any method."""

from dataclasses import replace

import pytest
import torch

from contrex.models import load_classifier
from contrex.settings import CGC, GCC, CrossEntropy, ExCon, Optimizer
from contrex.training import load_trained, train
from contrex.training.checkpoint import Checkpoints
from training.runs import quiet, stopped_and_resumed, tiny


def starting_from(tmp_path, recipe):
    """The recipe with a file of weights whose batch norms have statistics."""
    network = load_classifier(recipe.model, num_classes=10).network.train()
    with torch.no_grad():
        network(torch.rand(8, 3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = replace(recipe.model, weights=tmp_path / "weights.pth", fresh=("fc",))
    return replace(recipe, model=model), network.state_dict()


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (CGC(resolution=32), ("features.1.0", "features.2")),
        (CrossEntropy(), ("features.0",)),
        pytest.param(GCC(), ("features.0", "features.2.1"), marks=pytest.mark.slow),
        pytest.param(ExCon(background=True), ("features.1",), marks=pytest.mark.slow),
    ],
)
def test_what_is_frozen_is_bit_identical_after_training_and_the_rest_has_moved(tmp_path, method, names):
    optimizer = Optimizer("adamw", lr=1e-3, weight_decay=0.1)  # decays even what has no gradient
    recipe, before = starting_from(tmp_path, replace(tiny(freeze=names), method=method, optimizer=optimizer))
    train(recipe, tmp_path / "run", console=quiet())
    _, classifier, _ = load_trained(tmp_path / "run")
    after = classifier.network.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith(names), name


@pytest.mark.slow
def test_a_linear_probe_with_its_rate_is_resumed(tmp_path):
    recipe, before = starting_from(tmp_path, tiny(freeze=("trunk",)))
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, head_lr=2.0))
    stopped_and_resumed(recipe, tmp_path, steps=(2, 4))
    content = Checkpoints(tmp_path / "straight").load()
    (groups,) = [state["param_groups"] for state in content["optimizers"]]
    assert [len(group["params"]) for group in groups] == [2]
    after = {name.removeprefix("network."): value for name, value in content["steps"][0].items()}
    for name, value in before.items():
        assert torch.equal(after[name], value) == (not name.startswith("fc")), name


def test_random_weights_that_stay_random_are_mentioned(tmp_path):
    console = quiet()
    train(tiny(epochs=1, freeze=("features.0",)), tmp_path / "random", console=console)
    assert "`training.freeze` keeps features.0 at random weights: there is no `model.weights`" in said(console)
    recipe, _ = starting_from(tmp_path, tiny(epochs=1, freeze=("features.0",)))
    console = quiet()
    train(recipe, tmp_path / "run", console=console)
    assert "random weights" not in said(console)


def said(console):
    return console.file.getvalue()
