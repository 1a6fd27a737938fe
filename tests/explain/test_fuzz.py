"""Random networks: each method explains one that changes in place as its twin and as its slow oracle, or refuses."""

import contextlib
from functools import partial

import pytest
import torch

import contrex
from contrex.errors import ContrexError
from contrex.explain import EXPLAINERS
from explain.places import share_past
from explain.programs import Program
from oracles import activation_methods, cams, input_methods
from sampling import sampled

CHEAPER = {
    "rise": partial(contrex.RISE, num_masks=16),
    "smooth_grad": partial(contrex.SmoothGrad, num_samples=2),
    "integrated_gradients": partial(contrex.IntegratedGradients, steps=2),
    "occlusion": partial(contrex.Occlusion, window=4, stride=4),
}
FROM_A_LAYER = {name for name in EXPLAINERS if name.endswith(("cam", "cam_plus_plus", "excitation_backprop"))}
"""Methods that are given the layer's name; the others start at the pixels."""
WITHOUT_ATTENTION = [name for name in EXPLAINERS if "attention" not in name]
AT_PIXELS = {
    "gradient": lambda net, image: input_methods.pixel_gradient(net, image, 1).sum(0),
    "gradient_times_input": lambda net, image: input_methods.gradient_times_input(net, image, 1),
}
AT_A_LAYER = {
    "grad_cam": cams.grad_cam,
    "hires_cam": cams.hires_cam,
    "xgrad_cam": activation_methods.xgrad_cam,
    "layer_cam": activation_methods.layer_cam,
}
AUTOMATIC = ("grad_cam", "layer_cam")
"""Methods whose automatic layer is tried too."""


def images(seed):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explainer_of(method, net, layer):
    kind = CHEAPER.get(method, EXPLAINERS[method])
    return kind(net, layer) if method in FROM_A_LAYER else kind(net)


def at_layer(net, layer, x):
    """What the layer gives and `dy_1/dA` there, by hooks."""
    seen = []

    def keep(module, inputs, output):
        seen.append(output.detach().requires_grad_())
        return seen[0].clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        logits = net(x.clone())
    finally:
        handle.remove()
    return seen[0], torch.autograd.grad(logits[:, 1].sum(), seen[0])[0]


def assert_close(found, expected, what):
    difference, scale = float((found - expected).abs().max()), float(expected.abs().max())
    assert difference <= 1e-6 * scale, f"{what}: {difference:.3g} of {scale:.3g}"


def assert_right(seed, methods, **options):
    """How many of the methods explain the network that changes in place; all that do explain it right."""
    mine, twin = (Program(seed, in_place=in_place, **options) for in_place in (True, False))
    x, explained = images(seed), 0
    torch.testing.assert_close(mine(x.clone()), twin(x.clone()))
    for method in methods:
        what = f"{method}, seed {seed}: {mine}"
        with contextlib.suppress(ContrexError):
            found = explainer_of(method, mine, mine.layer)(x, target=1).heatmap
            expected = explainer_of(method, twin, twin.layer)(x, target=1).heatmap
            assert_close(found, expected, what)
            explained += 1
            if method in AT_PIXELS:
                assert_close(found, torch.stack([AT_PIXELS[method](twin, image) for image in x]), what)
            if method in AT_A_LAYER:
                pairs = zip(*at_layer(twin, twin.layer, x), strict=True)
                assert_close(found, torch.stack([AT_A_LAYER[method](a.detach(), g) for a, g in pairs]), what)
    return explained


@sampled(one_in=2)
@pytest.mark.parametrize("seed", range(5))
def test_a_few_random_networks(seed):
    assert (
        assert_right(seed, ["grad_cam", "gradient", "guided_backprop", "lrp", "excitation_backprop", "full_grad"]) >= 5
    )


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_random_networks(tenth):
    """Without gates, every method explains nearly every network."""
    counts = [assert_right(seed, WITHOUT_ATTENTION) for seed in range(100 + 30 * tenth, 130 + 30 * tenth)]
    assert sum(counts) > 0.9 * len(counts) * len(WITHOUT_ATTENTION)


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(5))
def test_random_networks_with_gates(tenth):
    """Methods without a rule for products refuse them, the others are right."""
    counts = [
        assert_right(seed, WITHOUT_ATTENTION, has_gates=True) for seed in range(1000 + 20 * tenth, 1020 + 20 * tenth)
    ]
    assert sum(counts) > 0.7 * len(counts) * len(WITHOUT_ATTENTION)


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("method", AUTOMATIC)
def test_automatic_layers_carry_the_logits(method, tenth):
    """The layer that is chosen is named, no gradient flows past it, and the map is the plain one there."""
    for seed in range(2000 + 20 * tenth, 2020 + 20 * tenth):
        net, x = Program(seed, in_place=seed % 2 == 0, has_gates=True), images(seed)
        explainer = EXPLAINERS[method](net)
        found = explainer(x, target=1).heatmap
        what = f"{method} at {explainer.layer}, seed {seed}: {net}"
        assert share_past(net, explainer.layer, x) < 1e-3, what
        pairs = zip(*at_layer(net, explainer.layer, x), strict=True)
        assert_close(found, torch.stack([AT_A_LAYER[method](a.detach(), g) for a, g in pairs]), what)
