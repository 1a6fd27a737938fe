"""Frozen modules: what stays, what still learns through them, and what is refused."""

from collections import OrderedDict

import pytest
import torch

from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.methods import METHODS, training_plan
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.settings import Digits, Model, Recipe, Training
from methods.test_steps import make_batch
from sampling import sampled

MIDDLE = ("features.1",)


def make_network():
    torch.manual_seed(4)
    return ConvNet(3, widths=(4, 6, 5), strides=(2, 2, 1)).double()


def plan_of(method, network, *freeze, **settings):
    settings = {**({"resolution": 16} if "cgc" in method else {}), **settings}
    recipe = Recipe(
        method, Digits(), Model("contrex:convnet"), METHODS[method](**settings), training=Training(freeze=freeze)
    )
    return training_plan(Classifier(network, (0.5,) * 3, (0.25,) * 3), recipe)


@sampled(one_in=3)
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        # the head of sigmoids has nothing below what is frozen that learns
        *(
            (name, {"trained": ("all",), "mode": "train"} if name == "retrofit" else {})
            for name in METHODS
            if name != "bce_head"
        ),
        ("cgc", {"layer": "features.0"}),
        ("cgc", {"layer": "features.1", "contrast": "weighted"}),
        ("excon", {"layer": "features.0"}),
    ],
)
def test_what_is_free_learns_through_what_is_frozen(method, settings):
    """Its gradients are those of the free network whose frozen part is in eval mode: heatmaps above, at and below."""
    frozen, free = (plan_of(method, make_network(), *names, **settings) for names in (MIDDLE, ()))
    frozen.phases[0].begin(0)
    step, reference = frozen.phases[0].step, free.phases[0].step
    reference.load_state_dict(step.state_dict())
    free.phases[0].begin(0)
    reference.network.get_submodule(*MIDDLE).eval()
    batch = make_batch(num_views=step.wants.views)
    for one in (step, reference):
        one(batch).loss.backward()
    expected = dict(reference.named_parameters())
    for name, parameter in step.named_parameters():
        if name.startswith("network.features.1"):
            assert parameter.grad is None
        elif expected[name].grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-10, atol=1e-14)
    assert step.network.features[0][0].weight.grad.abs().max() > 0
    assert step.network.features[1][1].num_batches_tracked == 0
    assert step.network.features[0][1].num_batches_tracked > 0


@sampled(one_in=2)
@pytest.mark.parametrize("method", ["cross_entropy", "cgc", "cgc_no_negatives", "gcc"])
def test_a_linear_probe_moves_the_last_layer_alone(method):
    """Also the loss of a heatmap reaches it, and the gradient is that of the whole network in eval mode."""
    (phase,), (whole,) = (plan_of(method, make_network(), *names).phases for names in (("trunk",), ()))
    phase.begin(0)
    whole.begin(0)
    whole.step.network.eval()
    before = {name: value.clone() for name, value in phase.step.network.state_dict().items()}
    for step in (phase.step, whole.step):
        for _ in range(2):  # in the first call the closed form is verified
            step.zero_grad()
            step(make_batch()).loss.backward()
    moved = {name for name, parameter in phase.step.network.named_parameters() if parameter.grad is not None}
    assert moved == {"fc.weight", "fc.bias"}
    assert {id(p) for p in phase.parameters} == {id(p) for p in phase.step.network.fc.parameters()}
    for name in moved:
        found, expected = (step.network.get_parameter(name).grad for step in (phase.step, whole.step))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert all(torch.equal(value, before[name]) for name, value in phase.step.network.state_dict().items())


def test_a_module_called_trunk_is_that_module():
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    parts = {"trunk": trunk, "neck": torch.nn.Linear(4, 4), "fc": torch.nn.Linear(4, 3)}
    (phase,) = plan_of("cross_entropy", torch.nn.Sequential(OrderedDict(parts)), "trunk").phases
    assert len(phase.parameters) == 4
    assert list(phase.frozen) == [trunk]


def test_in_two_phases_each_lacks_what_is_frozen():
    network = make_network()
    encoder, classifier = plan_of("supcon", network, "features.0").phases
    assert not any(p is own for p in encoder.parameters for own in network.features[0].parameters())
    assert len(classifier.parameters) == 2
    with pytest.raises(ArgumentError, match=r"freeze` fc leaves nothing of the network to train in the phase classif"):
        plan_of("supcon", network, "fc")
    with pytest.raises(ArgumentError, match=r"freeze` trunk leaves nothing of the network .* in the phase encoder: fr"):
        plan_of("supcon", network, "trunk")


def test_what_cannot_be_frozen():
    network = make_network()
    with pytest.raises(UnknownNameError, match=r"`training.freeze` must be one of trunk, .*'feature'. Did you mean"):
        plan_of("cgc", network, "fc", "feature")
    with pytest.raises(UnknownNameError, match=r"`training.freeze` must be one of .*; got ''"):
        plan_of("cgc", network, "")
    with pytest.raises(ArgumentError, match=r"`training.freeze` features fc leaves nothing of the network to train: f"):
        plan_of("cgc", network, "features", "fc")
    headless = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(LayerError, match=r"`training.freeze` trunk spares .*, Sequential ends in "):
        plan_of("cross_entropy", headless, "trunk")
