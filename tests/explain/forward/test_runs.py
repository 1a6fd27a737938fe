"""One run of a module that runs several times in a pass."""

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain.named import build_explainer
from explain.networks import images
from sampling import crossed

KINDS = ("GradCAM", "HiResCAM", "LayerCAM", "ScoreCAM", "EigenCAM", "AblationCAM", "LRP", "ExcitationBackprop")


class Shared(nn.Module):
    """A weight-shared convolution and one ReLU for all."""

    def __init__(self, times=3):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.pool, self.fc, self.times = nn.MaxPool2d(2), nn.Linear(4 * 2, 4), times
        self.double().eval()

    def forward(self, x):
        x = self.act(self.stem(x))
        for _ in range(self.times - 1):
            x = self.act(self.mix(x))
        return self.fc(self.pool(x)[:, :, :, 2:4].mean(2).flatten(1))


class Alone(Shared):
    """The same network with a module for each run."""

    def __init__(self):
        super().__init__()
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x):
        x = self.acts[0](self.stem(x))
        for act in self.acts[1:]:
            x = act(self.mix(x))
        return self.fc(self.pool(x)[:, :, :, 2:4].mean(2).flatten(1))


@pytest.mark.parametrize("kind", crossed(KINDS, one_in=2))
def test_a_run_is_explained_as_a_module_of_its_own(kind):
    make, x, asked = getattr(contrex, kind), images(2), {} if kind == "EigenCAM" else {"target": 1}
    for run in range(3):
        found = make(Shared(), f"act:{run}")(x, **asked)
        expected = make(Alone(), f"acts.{run}")(x, **asked)
        torch.testing.assert_close(found.heatmap, expected.heatmap)
        assert found.layer == f"act:{run}"
    last = make(Shared(), "act:-1")
    assert last.layer == "act:-1"
    torch.testing.assert_close(last(x, **asked).heatmap, found.heatmap)
    assert last.layer == "act:2"


def test_several_runs_at_once_in_training_and_by_name():
    net, x = Shared(), images(2)
    at = contrex.GradCAM(net).layers(x, ["act:0", "act:2", "mix:1"], target=1)
    assert list(at) == ["act:0", "act:2", "mix:1"]
    for name, why in at.items():
        torch.testing.assert_close(contrex.GradCAM(net, name)(x, target=1).heatmap, why.heatmap)
    assert not torch.allclose(at["act:0"].heatmap, at["act:2"].heatmap)
    trained = contrex.GradCAM(net, "act:0")(x, target=1, differentiable=True)
    torch.testing.assert_close(trained.heatmap, at["act:0"].heatmap)
    trained.heatmap.square().sum().backward()
    assert net.stem.weight.grad.abs().max() > 0
    named = build_explainer(net, "grad_cam(layer='act:-1')")(x, target=1)
    torch.testing.assert_close(named.heatmap, at["act:2"].heatmap)


def test_runs_that_are_none():
    net, x = Shared(), images(2)
    with pytest.raises(
        LayerError, match=r"'act' ran 3 times in one pass, so .*: name one run, 'act:0', 'act:1', 'act:2'"
    ):
        contrex.GradCAM(net, "act")(x)
    with pytest.raises(
        LayerError, match="`layer` 'act:3' is no run of it: it ran 3 times in one pass, 'act:0', 'act:1'"
    ):
        contrex.GradCAM(net, "act:3")(x)
    with pytest.raises(UnknownNameError, match="`layer` of Shared"):
        contrex.GradCAM(net, "acts:0")
    with pytest.raises(UnknownNameError, match="`layer` of Shared"):
        contrex.GradCAM(net, "act:one")
    with pytest.raises(ArgumentError, match="`layers` must name different layers"):
        contrex.GradCAM(net).layers(x, ["act:1", "act:1"])
    torch.testing.assert_close(  # the only run of a module may be named too
        contrex.GradCAM(net, "stem:0")(x).heatmap, contrex.GradCAM(net, "stem")(x).heatmap
    )
