"""RISE and occlusion against their equations and captum; captum's own methods behind the front door."""

import importlib
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain.adaptors.captum import CaptumMissingError
from contrex.explain.perturbation.rise import _masks
from explain.networks import images, network
from oracles import input_methods as oracles
from oracles.cams import CONTRASTS, assert_contrasted, contrasted
from sampling import crossed, sampled

TARGET = [0, 1, 3]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def counted(net, explain):
    """The sizes of the batches that `net` sees."""
    sizes = []
    handle = net.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    explain()
    handle.remove()
    return sizes


# --- RISE ------------------------------------------------------------------------------------------------------------


@sampled(one_in=3)
@pytest.mark.parametrize("size", [(8, 12), (14, 7), (3, 5)])
@pytest.mark.parametrize("cells", [1, 3, 7])
def test_masks_are_enlarged_and_shifted_grids(size, cells):
    net = contrex.RISE(network(), num_masks=6, cells=cells, seed=2)
    grids, corners = net._draws(*size)
    found = _masks(grids, corners, *size)
    for mask, grid, (top, left) in zip(found, grids, corners.tolist(), strict=True):
        torch.testing.assert_close(mask.double(), oracles.rise_mask(grid, top, left, size), rtol=1e-5, atol=1e-5)


def test_every_pixel_is_kept_as_often_as_promised():
    grids, corners = contrex.RISE(network(), num_masks=4000, keep=0.3)._draws(30, 20)
    masks = _masks(grids, corners, 30, 20)
    assert (masks.mean(0) - 0.3).abs().max() < 0.04
    assert 0 <= masks.min() < masks.max() < 1 + 1e-6


def test_rise_is_its_equation():
    net, x = network("mlp"), images()
    explainer = contrex.RISE(net, num_masks=20, cells=4, keep=0.4, seed=3)
    grids, corners = explainer._draws(8, 12)
    masks = [oracles.rise_mask(g, *c, (8, 12)).float().double() for g, c in zip(grids, corners.tolist(), strict=True)]
    why = explainer(x, target=TARGET, score="probability")
    for index, target in enumerate(TARGET):
        expected = oracles.rise(net, x[index], target, masks, 0.4)
        torch.testing.assert_close(why.heatmap[index], expected, rtol=1e-5, atol=1e-6)


def test_rise_finds_the_part_that_counts():
    """A network that sees one corner only: that is where the map is brightest."""

    class Corner(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, :, :8, -8:].mean((1, 2, 3)), x.mean((1, 2, 3)) * 0], 1)

    heatmap = contrex.RISE(Corner(), num_masks=600)(torch.ones(1, 3, 28, 28), target=0).heatmap[0]
    assert heatmap[:8, -8:].mean() > heatmap[12:, :12].mean() + 0.05


def test_rise_needs_one_forward_per_mask_and_image_and_no_large_batch():
    net, x = network(), images()
    explainer = contrex.RISE(net, num_masks=50, batch_size=16)
    # two copies of one image tell whether it is answered alone; the first batch comes in two layouts
    assert counted(net, lambda: explainer(x)) == [3, 2, 16, *[16] * 9, *[2] * 3]
    found = contrex.RISE(net, num_masks=50, batch_size=7)(x).heatmap
    torch.testing.assert_close(found, explainer(x).heatmap)


# --- occlusion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "window", "stride"),
    [
        pytest.param({}, (2, 2), (1, 1), marks=pytest.mark.slow),
        ({"window": 3, "stride": 3}, (3, 3), (3, 3)),
        ({"window": (4, 5), "stride": (3, 2), "baseline": 0.7}, (4, 5), (3, 2)),
        ({"window": (8, 12), "baseline": lambda x: x.flip(-1)}, (8, 12), (4, 6)),
    ],
)
def test_occlusion_is_its_equation(options, window, stride):
    net, x = network("mlp"), images()
    baseline = options.get("baseline", 0.0)
    fillings = [baseline(image) if callable(baseline) else torch.full_like(image, baseline) for image in x]
    maps = [
        [oracles.occlusion(net, image, k, window, stride, filling) for k in range(4)]
        for image, filling in zip(x, fillings, strict=True)
    ]
    assert_contrasted(contrex.Occlusion(net, **options), x, TARGET, maps, **CLOSE)


@pytest.mark.parametrize(("window", "stride"), [((2, 4), (2, 2)), ((4, 3), (2, 3))])
def test_occlusion_agrees_with_captum_where_the_windows_fit(window, stride):
    captum = pytest.importorskip("captum.attr")
    net, x, target = network("mlp"), images(), torch.tensor(TARGET)
    found = contrex.Occlusion(net, window=window, stride=stride, baseline=0.1)(x, target=target).heatmap
    theirs = captum.Occlusion(net).attribute(x, (3, *window), strides=(3, *stride), baselines=0.1, target=target)
    torch.testing.assert_close(found.float(), theirs[:, 0].float(), rtol=1e-5, atol=1e-6)


def test_occlusion_needs_one_forward_per_window_and_image():
    net, x = network(), images()
    explainer = contrex.Occlusion(net, window=4, stride=2, batch_size=4)
    assert counted(net, lambda: explainer(x)) == [3, 2, 4, *[4, 4, 4, 3] * 3]  # as for RISE


@pytest.mark.parametrize(
    ("build", "score"),
    crossed(
        [lambda net: contrex.RISE(net, num_masks=9), contrex.Occlusion],
        ["logit", "probability", "log_probability"],
        one_in=2,
    ),
)
def test_both_roads_to_a_contrast_agree(build, score):
    """Proposition 3: the map is linear in the weights of the classes, whatever f is."""
    net, x = network("mlp"), images()
    explainer = build(net)
    maps = explainer.classes(x, classes=range(4), score=score).heatmap
    for contrast in CONTRASTS:
        why = explainer(x, target=TARGET, contrast=contrast, score=score)
        for index, target in enumerate(TARGET):
            expected = contrasted(list(maps[index]), why.logits[index].tolist(), target, contrast, score)
            torch.testing.assert_close(why.heatmap[index], expected, **CLOSE)


def test_seeds_reproduce_whatever_the_random_state():
    net, x = network("mlp"), images()
    maps = []
    for seed in (1, 1, 2):
        torch.rand(7)
        maps.append(contrex.RISE(net, num_masks=30, seed=seed)(x).heatmap)
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (contrex.RISE, {"num_masks": 0}, "`num_masks` must be at least 1, got 0"),
        (contrex.RISE, {"cells": 0}, "`cells` must be at least 1, got 0"),
        (contrex.RISE, {"keep": 1.0}, "`keep` must be a probability between 0 and 1, got 1.0"),
        (contrex.RISE, {"batch_size": 0}, "`batch_size` must be at least 1 image, got 0"),
        (contrex.Occlusion, {"window": 0}, r"`window` must be at least 1 pixel, or \(height, width\); got 0"),
        (contrex.Occlusion, {"stride": (1, 2, 3)}, r"`stride` must be at least 1 pixel, .*; got \(1, 2, 3\)"),
        (contrex.Occlusion, {"window": 9}, "`window` must fit into the image, got 9 for a side of 8 pixels"),
        (contrex.Occlusion, {"window": 2, "stride": 3}, "`stride` must be at most the window's 2 pixels.*got 3"),
        (contrex.Occlusion, {"baseline": torch.zeros(4)}, r"`baseline` must be a number.*got a tensor \[4, 1, 1\]"),
    ],
)
def test_impossible_options_are_refused(kind, options, message):
    with pytest.raises(ArgumentError, match=message):
        kind(network(), **options)(images())


# --- captum ----------------------------------------------------------------------------------------------------------


captum_installed = pytest.mark.skipif(not importlib.util.find_spec("captum"), reason="captum is not installed")
ignore_captum = pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning")

METHODS = {
    "IntegratedGradients": {"n_steps": 9, "method": "riemann_middle", "internal_batch_size": 4},
    "InputXGradient": {},
    "Saliency": {"abs": False},
    "DeepLift": {},
    "FeatureAblation": {
        "baselines": 0.2,
        "feature_mask": torch.arange(24).view(4, 6).repeat_interleave(2, 0).repeat_interleave(2, 1),
    },
    "Occlusion": {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2)},
    "GuidedBackprop": {},
}


def simple():
    """A network that captum's rules for modules can walk: no reuse, nothing in place, no functions."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.ReLU(), nn.Flatten())
    net.append(nn.LazyLinear(4))
    net(images(1).float())
    return net.double().eval()


@captum_installed
@ignore_captum
@pytest.mark.parametrize("name", crossed(METHODS, one_in=3))
def test_captum_gets_targets_and_contrasts(name):
    attr = importlib.import_module("captum.attr")
    net, x = simple(), images()
    theirs = getattr(attr, name)(net)
    maps = [
        theirs.attribute(x.clone().requires_grad_(), target=k, **METHODS[name]).detach().sum(1).double()
        for k in range(4)
    ]
    explainer = contrex.Captum(net, name, **METHODS[name])
    assert_contrasted(explainer, x, TARGET, list(zip(*maps, strict=True)), rtol=1e-5, atol=1e-6)  # some give float32


@captum_installed
@ignore_captum
def test_captum_agrees_with_our_own_methods_for_any_score():
    net, x = simple(), images()
    pairs = {
        "IntegratedGradients": ({"n_steps": 32}, contrex.IntegratedGradients(net), 1),
        "Occlusion": (METHODS["Occlusion"], contrex.Occlusion(net, window=4, stride=2), 3),  # captum: for each channel
        "Saliency": ({"abs": False}, contrex.Gradient(net), 1),
    }
    for name, (options, ours, scale) in pairs.items():
        for score in ("logit", "probability", "log_probability"):
            expected = scale * ours(x, contrast="weighted", score=score).heatmap
            found = contrex.Captum(net, name, **options)(x, contrast="weighted", score=score).heatmap
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@captum_installed
@ignore_captum
def test_captum_draws_the_same_for_each_image_and_leaves_the_generators_alone():
    import numpy as np

    net, x = simple(), images()
    options = {"baselines": torch.zeros(4, 3, 8, 12, dtype=torch.float64), "stdevs": 0.2, "n_samples": 4}
    explainer = contrex.Captum(net, "GradientShap", seed=1, **options)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002
    whole = explainer(x, target=1).heatmap
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.rand(3)
    torch.testing.assert_close(explainer(x[2:], target=1).heatmap, whole[2:])
    other = contrex.Captum(net, "GradientShap", seed=2, **options)(x, target=1).heatmap
    assert not torch.allclose(other, whole)


@captum_installed
@ignore_captum
def test_captum_explains_layers_by_name():
    net, x = simple(), images()
    found = contrex.Captum(net, "LayerGradCam", layer="1")(x, contrast="weighted").heatmap
    torch.testing.assert_close(found, contrex.GradCAM(net, "1")(x, contrast="weighted").heatmap)
    with pytest.raises(LayerError, match=r"must give a feature map, '6' \(Linear\) gives a tensor \[1, 4\]"):
        contrex.Captum(net, "LayerGradientXActivation", layer="6")(x)


class ChannelsLast(nn.Module):
    """A network with a layer [N,h,w,C] of equal sides, and tokens [N,T,C] behind it; one module runs twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.patches, self.last, self.mix = nn.Conv2d(3, 4, 4, stride=4), Moved(), nn.Linear(4, 4)
        self.flat, self.norm, self.act = nn.Flatten(1, 2), nn.LayerNorm(4), nn.ReLU()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.act(self.norm(self.act(self.flat(self.mix(self.last(self.patches(x))))))).square().mean(1))


class Moved(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


LAYERS = {
    "LayerGradientXActivation": {},
    "LayerIntegratedGradients": {"n_steps": 5},
    "InternalInfluence": {"n_steps": 5},
    "LayerGradientShap": {"baselines": torch.zeros(1, 3, 16, 16, dtype=torch.float64)},
}


@captum_installed
@ignore_captum
@pytest.mark.parametrize("layer", ["mix", "norm", "patches"])
@pytest.mark.parametrize("name", LAYERS)
def test_captum_sums_over_the_channels_of_a_layer_wherever_they_are(name, layer):
    import numpy as np

    net, x = ChannelsLast().double().eval(), images(2, (16, 16))
    theirs = getattr(importlib.import_module("captum.attr"), name)(net, getattr(net, layer))
    maps = []
    for image in x.split(1):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        maps.append(theirs.attribute(image.clone().requires_grad_(), target=1, **LAYERS[name]).detach())
    expected = torch.cat(maps).sum(1 if layer == "patches" else -1).reshape(2, 4, 4)
    found = contrex.Captum(net, name, layer=layer, **LAYERS[name])(x, target=1).heatmap
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    if name == "LayerGradientXActivation":
        torch.testing.assert_close(found, contrex.HiResCAM(net, layer)(x, target=1).heatmap)


@captum_installed
@ignore_captum
def test_captum_reads_what_a_layer_gets():
    """What comes into a layer that moves the channels is not laid out as what goes out."""
    net, x = ChannelsLast().double().eval(), images(2, (16, 16))
    name = "LayerGradientXActivation"
    entering = contrex.Captum(net, name, layer="last", attribute_to_layer_input=True)(x, target=1).heatmap
    torch.testing.assert_close(entering, contrex.HiResCAM(net, "patches")(x, target=1).heatmap)
    own = contrex.Captum(net, name, layer="mix", reshape=lambda maps: maps.permute(0, 3, 2, 1))(x, target=1)
    torch.testing.assert_close(own.heatmap, contrex.HiResCAM(net, "mix")(x, target=1).heatmap.mT)


@captum_installed
@ignore_captum
def test_captum_averages_over_the_second_axis_alone():
    net, x = ChannelsLast().double().eval(), images(2, (16, 16))
    for name in ("LayerGradCam", "GuidedGradCam"):
        for layer in ("mix", "norm"):
            with pytest.raises(LayerError, match=rf"{name} reads a layer as \[N,C,h,w\], and '{layer}' is none: use"):
                contrex.Captum(net, name, layer=layer)(x)
    for options in ({}, {"attr_dim_summation": False}):
        found = contrex.Captum(net, "LayerGradCam", layer="patches", **options)(x, target=1).heatmap
        torch.testing.assert_close(found, contrex.GradCAM(net, "patches")(x, target=1).heatmap)
    with pytest.raises(LayerError, match="'act' ran 2 times in one pass"):
        contrex.Captum(net, "LayerGradCam", layer="act")(x)
    with pytest.raises(ArgumentError, match="`reshape` reads a layer, and captum's Saliency gives no map of one"):
        contrex.Captum(net, "Saliency", reshape=lambda maps: maps)


class Calling(nn.Module):
    """A network that calls `act` as a function, behind a layer that captum may explain."""

    def __init__(self, act):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.relu, self.second, self.act = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), act
        self.third, self.fc = nn.Conv2d(4, 4, 3), nn.Linear(4 * 2 * 6, 4)

    def forward(self, x):
        return self.fc(self.third(self.act(self.second(self.relu(self.first(x))))).flatten(1))


RECTIFIERS = {
    "relu": F.relu,
    "relu_": lambda x: torch.relu_(x.clone()),
    "tensor": lambda x: x.relu(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "relu6": nn.ReLU6(),
    "hidden": lambda x: nn.ReLU().forward(x),
}
CHANGES_RULES = {
    "GuidedBackprop": "GuidedBackprop, which sees every ReLU",
    "Deconvolution": "Deconvnet, which sees every ReLU",
    "GuidedGradCam": "GuidedGradCAM, which sees every ReLU",
    "DeepLift": "IntegratedGradients, which is complete too",
    "DeepLiftShap": "IntegratedGradients, which is complete too",
    "LayerDeepLift": "IntegratedGradients, which is complete too",
}


def told(name, layer):
    """The options that a method needs."""
    options = {"layer": layer} if "Layer" in name or "Cam" in name else {}
    return options | ({"baselines": torch.zeros(2, 3, 8, 12, dtype=torch.float64)} if "Shap" in name else {})


@captum_installed
@ignore_captum
@pytest.mark.parametrize("act", RECTIFIERS)
@pytest.mark.parametrize("name", CHANGES_RULES)
def test_captum_refuses_rectifiers_that_it_does_not_see(name, act):
    """Where it changes the rules of modules: guided backprop of a network that calls F.relu was its plain gradient."""
    net, x = Calling(RECTIFIERS[act]).double().eval(), images()
    message = rf"captum's {name} sees .* alone, and Calling calls .*: make that .*{CHANGES_RULES[name]}"
    with pytest.raises(LayerError, match=message):
        contrex.Captum(net, name, **told(name, "first"))(x)


@captum_installed
@ignore_captum
def test_captum_explains_what_it_sees():
    """Bounds that are no rectifier, and functions before the explained layer, are no matter."""
    net, x = Calling(lambda x: x.clamp(min=-1e3) * 2).double().eval(), images()
    for name, ours in (("GuidedBackprop", contrex.GuidedBackprop), ("Deconvolution", contrex.Deconvnet)):
        torch.testing.assert_close(contrex.Captum(net, name)(x, target=1).heatmap, ours(net)(x, target=1).heatmap)
    net.act = F.relu
    found = contrex.Captum(net, "LayerDeepLift", layer="third")(x, target=1).heatmap
    change = net(x)[:, 1] - net(0 * x)[:, 1]
    torch.testing.assert_close(found.sum((1, 2)), change.detach())
    lrp = contrex.Captum(net, "LRP")(x, target=1).heatmap
    net.act = nn.ReLU()
    torch.testing.assert_close(contrex.Captum(net, "LRP")(x, target=1).heatmap, lrp)
    found = contrex.Captum(net, "DeepLift")(x, target=1).heatmap
    torch.testing.assert_close(found.sum((1, 2)), change.detach())


class PreActivated(Calling):
    """A block whose first layer is an activation, and a way past it."""

    def forward(self, x):
        x = self.first(x)
        x = x + F.pad(self.second(self.act(x)), (1, 1, 1, 1))
        return self.fc(self.third(F.avg_pool2d(self.relu(x), 3, 1)).flatten(1))


@captum_installed
@ignore_captum
def test_captum_changes_the_rule_of_an_activation_and_not_of_the_way_past_it():
    """captum's hook on the activation's input took in what comes back on both ways."""
    net, x = PreActivated(nn.ReLU()).double().eval(), images()
    for name, ours in (("GuidedBackprop", contrex.GuidedBackprop), ("Deconvolution", contrex.Deconvnet)):
        torch.testing.assert_close(contrex.Captum(net, name)(x, target=1).heatmap, ours(net)(x, target=1).heatmap)
    found = contrex.Captum(net, "DeepLift")(x, target=1).heatmap
    torch.testing.assert_close(found.sum((1, 2)), (net(x)[:, 1] - net(0 * x)[:, 1]).detach())
    net.act.inplace = True
    for name in ("GuidedBackprop", "DeepLift"):
        with pytest.raises(LayerError, match="PreActivated goes on with what an activation changed in place"):
            contrex.Captum(net, name)(x)
    net.act.inplace, net.relu.inplace = False, True
    torch.testing.assert_close(contrex.Captum(net, "DeepLift")(x, target=1).heatmap, found)


@captum_installed
@ignore_captum
def test_captum_refuses_other_functions_that_it_does_not_see():
    x = images()
    for act in (torch.tanh, F.gelu, nn.GELU(), lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: x.softmax(1)):
        with pytest.raises(LayerError, match=r"captum's DeepLift sees ReLU, .* alone, and Calling calls"):
            contrex.Captum(Calling(act).double().eval(), "DeepLift")(x)
    with pytest.raises(LayerError, match=r"LRP sees modules alone, and Calling calls tanh in 'Calling'.* contrex.LRP"):
        contrex.Captum(Calling(torch.tanh).double().eval(), "LRP")(x)
    net = simple()
    with pytest.raises(LayerError, match="calls softmax in what is read of its output"):
        contrex.Captum(net, "DeepLift")(x, score=lambda logits: logits.softmax(1)[:, 0])
    with pytest.raises(LayerError, match=r"sees nn.ReLU modules alone, and Sequential has none: use Gradient\."):
        contrex.Captum(nn.Sequential(*net[:1], nn.Tanh(), *net[5:6], nn.LazyLinear(4)).double(), "GuidedBackprop")(x)
    with warnings.catch_warnings(action="ignore"):
        net[0] = torch.jit.script(net[0])
    with pytest.raises(LayerError, match="a ScriptModule"):
        contrex.Captum(net, "GuidedBackprop")(x)


@captum_installed
@ignore_captum
@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "Saliency"])
@pytest.mark.slow
def test_captum_keeps_the_contract(name):
    from contrex.explain.contract import CHECKS

    options = {"n_steps": 4} if name == "IntegratedGradients" else {}
    for check in CHECKS.values():
        check(lambda model: contrex.Captum(model, name, **options), simple(), images())


@captum_installed
def test_captum_refuses_what_it_cannot_do():
    net = simple()
    with pytest.raises(UnknownNameError, match=r"`attribution` must be one of .*got 'DeepLyft'. Did you|Near it"):
        contrex.Captum(net, "DeepLyft")
    for name in ("NeuronGradient", "NoiseTunnel", "LayerActivation", "FeaturePermutation"):
        with pytest.raises(UnknownNameError, match="`attribution` must be one of"):
            contrex.Captum(net, name)
    with pytest.raises(UnknownNameError, match=r"option of captum's Saliency must be one of abs; got 'n_steps'"):
        contrex.Captum(net, "Saliency", n_steps=3)
    for reserved in ("target", "additional_forward_args", "return_convergence_delta", "inputs"):
        with pytest.raises(UnknownNameError, match=f"got '{reserved}'"):
            contrex.Captum(net, "IntegratedGradients", **{reserved: 1})
    with pytest.raises(ArgumentError, match=r"GradientShap needs `baselines`: pass Captum\(model, 'GradientShap', "):
        contrex.Captum(net, "GradientShap")
    with pytest.raises(UnknownNameError, match="`layer` of Sequential must be one of"):
        contrex.Captum(net, "LayerGradCam", layer="conv9")
    with pytest.raises(ArgumentError, match=r"`score` must be 'logit' for captum's DeepLift.*got 'probability'"):
        contrex.Captum(net, "DeepLift")(images(), score="probability")


def test_captum_missing_is_said_with_the_fix(monkeypatch):
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(CaptumMissingError, match=r"pip install 'contrex\[captum\]'"):
        contrex.Captum(simple(), "Saliency")


def test_a_network_that_views_its_feature_map_is_asked_in_its_own_layout():
    """`.view` fails on channels last; the answers are the same as those of a network that flattens."""

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 5)
            self.layouts = []

        def forward(self, x):
            self.layouts.append(x.is_contiguous())
            return self.fc(self.conv(x).view(len(x), -1))

    class Flattening(Viewing):
        def forward(self, x):
            self.layouts.append(x.is_contiguous())
            return self.fc(self.conv(x).flatten(1))

    viewing, flattening, x = Viewing(), Flattening(), torch.randn(2, 3, 8, 8)
    options = {"window": 4, "stride": 4, "batch_size": 4}
    found = contrex.Occlusion(viewing, **options)(x, target=1).heatmap
    torch.testing.assert_close(found, contrex.Occlusion(flattening, **options)(x, target=1).heatmap)
    assert viewing.layouts == [True, True, False, True, True]  # two first passes, one that failed, and what it takes
    assert flattening.layouts == [True, True, False, True, False]  # the second batch comes in one
    with pytest.raises(RuntimeError, match="shape"):
        contrex.Occlusion(viewing, **options)(torch.randn(1, 3, 9, 9))
