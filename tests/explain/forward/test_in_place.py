"""What a network changes in place, through views too: its maps are those of the same network out of place."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import contrex
from contrex.errors import LayerError
from explain.edits import EDITS, REFUSED_BY_AUTOGRAD, twins
from explain.networks import SwitchedOff, images
from oracles import input_methods
from sampling import crossed, sampled

PROPAGATION = {
    "lrp": contrex.LRP,
    "lrp at a layer": lambda model: contrex.LRP(model, "conv", rules="epsilon"),
    "excitation": lambda model: contrex.ExcitationBackprop(model, "input"),
    "contrastive": lambda model: contrex.ContrastiveExcitationBackprop(model, "conv"),
}
RELU_RULES = {"guided": contrex.GuidedBackprop, "deconvnet": contrex.Deconvnet}
METHODS = PROPAGATION | RELU_RULES | {"full_grad": contrex.FullGrad, "gradient": contrex.Gradient}


def assert_same(found, expected):
    torch.testing.assert_close(found.logits, expected.logits)
    scale = float(expected.heatmap.abs().max())
    assert scale > 0
    torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize(("method", "edit"), crossed(METHODS, EDITS, one_in=4))
def test_maps_are_those_of_the_twin(method, edit):
    mine, twin = twins(EDITS[edit])
    x = images(2, (6, 5))
    assert_same(METHODS[method](mine)(x, target=1), METHODS[method](twin)(x, target=1))


@pytest.mark.parametrize(("method", "edit"), crossed(PROPAGATION, REFUSED_BY_AUTOGRAD, one_in=2))
def test_relevance_follows_what_autograd_refuses(method, edit):
    mine, twin = twins(REFUSED_BY_AUTOGRAD[edit])
    x = images(2, (6, 5))
    assert_same(PROPAGATION[method](mine)(x, target=1), PROPAGATION[method](twin)(x, target=1))


@sampled(one_in=3)
@pytest.mark.parametrize("edit", ["nn.ReLU behind nn.Flatten", "the base of a changed view", "relu_ of a slice"])
@pytest.mark.parametrize(
    "build",
    [
        lambda net: contrex.Occlusion(net, window=3),
        lambda net: contrex.RISE(net, num_masks=20),
        lambda net: contrex.ScoreCAM(net, "act"),
    ],
)
def test_perturbed_images_are_laid_out_as_the_network_needs_them(build, edit):
    """In channels last `flatten` copies, and what is written to the copy is lost."""
    mine, twin = twins(EDITS[edit])
    x = images(2, (6, 5))
    assert_same(build(mine)(x, target=1), build(twin)(x, target=1))


class Editing(nn.Module):
    """A module whose output was changed in place after it was made."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(8, 8, 3, padding=1), function

    def forward(self, x):
        x = self.conv(x)
        self.function(x)
        return x


@pytest.mark.parametrize("edit", ["relu_ of a slice", "setitem", "two views that overlap"])
def test_layers_and_contrast_layers_give_what_they_became(edit):
    x, layers, contrasts = images(2, (6, 5)), [], []
    for in_place in (True, False):
        torch.manual_seed(5)
        module = Editing(EDITS[edit][0])
        if not in_place:
            module = nn.Sequential(module.conv, Lambda(EDITS[edit][1]))
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), module, nn.Conv2d(8, 8, 1), nn.ReLU())
        net = nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).double().eval()
        layers.append(contrex.LRP(net, rules="epsilon").layers(x, ["1", "2"], target=1))
        contrasts.append(contrex.ContrastiveExcitationBackprop(net, "1", contrast_layer="2")(x, target=1))
    for name in ("1", "2"):
        assert_same(layers[0][name], layers[1][name])
    assert_same(*contrasts)


def _pixels_scaled(x):
    x[:, :1].mul_(0.5)
    return x


def _pixels_moved(x):
    x.sub_(0.25).div_(0.5)
    return x


def _pixels_mixed(x):
    x[:, 0] = x[:, 1] + x[:, 2]
    return x


PIXELS = {
    "one colour": (_pixels_scaled, lambda x: torch.cat([x[:, :1] * 0.5, x[:, 1:]], 1)),
    "all": (_pixels_moved, lambda x: (x - 0.25) / 0.5),
    "colours mixed": (_pixels_mixed, lambda x: torch.cat([x[:, 1:2] + x[:, 2:], x[:, 1:]], 1)),
}


@pytest.mark.parametrize(("method", "edit"), crossed(METHODS, PIXELS, one_in=2))
def test_changes_of_the_images_themselves(method, edit):
    x, maps = images(2, (6, 5)), []
    before = x.clone()
    for function in PIXELS[edit]:
        torch.manual_seed(5)
        net = Around(function, nn.Conv2d(3, 8, 3)).double().eval()
        maps.append(METHODS[method](net)(x, target=1))
    assert_same(*maps)
    assert torch.equal(x, before)


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class Around(nn.Module):
    """`function`, then `conv`, ReLU, and a linear classifier; `after` comes behind the convolution."""

    def __init__(self, function, conv, after=torch.relu):
        super().__init__()
        self.function, self.conv, self.after, self.fc = function, conv, after, nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.after(self.conv(self.function(x))).mean((2, 3)))


# --- what cannot be followed is refused -----------------------------------------------------------------------------


def _detached(x):
    x.detach().relu_()
    return x


def _data(x):
    x.data[:, :4].mul_(2.0)
    return x


def _new_data(x):
    x.data = x * 2
    return x


def _no_grad(x):
    with torch.no_grad():
        x[:, :4] *= 2
    return x


class _Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def _own(x):
    _Doubling.apply(x)
    return x


def _checkpointed(x):
    return checkpoint(torch.relu, x, use_reentrant=False)


def _exponential(x):
    x[:, :4].exp_()
    return x


BESIDE_THE_GRAPH = {
    "relu_ of detach": (_detached, "relu_ changes a tensor beside its graph"),
    "mul_ of .data": (_data, "mul_ changes a tensor beside its graph"),
    "another .data": (_new_data, "no rule says|beside its graph"),
    "under no_grad": (_no_grad, "changes a tensor beside its graph"),
    "an own function": (_own, "mul_ changes a tensor beside its graph"),
    "run again": (_checkpointed, "activation checkpointing runs functions again, without their rules"),
    "without a rule": (_exponential, "no rule says how relevance passes through torch.Tensor.exp_"),
}


@pytest.mark.parametrize("edit", BESIDE_THE_GRAPH)
@pytest.mark.parametrize("method", PROPAGATION)
def test_changes_beside_the_graph_are_refused(method, edit):
    function, message = BESIDE_THE_GRAPH[edit]
    mine, _ = twins((function, function))
    with pytest.raises(LayerError, match=f"cannot explain Edited: .*({message})"):
        PROPAGATION[method](mine)(images(2, (6, 5)), target=1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_that_are_not_the_models_own_are_refused(dtype, scale):
    """A part that knows that it is intercepted: whatever the reason, other logits are another network's."""

    def odd(x):
        return x * (1.01 if torch.overrides._get_current_function_mode_stack() else 1.0)

    net = Around(odd, nn.Conv2d(3, 8, 3)).to(dtype).eval()
    with torch.no_grad():
        net.fc.weight.mul_(scale)
        net.fc.bias.zero_()
    for kind in (contrex.LRP, contrex.ExcitationBackprop, contrex.ContrastiveExcitationBackprop):
        with pytest.raises(
            LayerError, match=r"the logits of image 0 differ from the model's own by .* a gradient method"
        ):
            kind(net, "input")(images(2).to(dtype))


@pytest.mark.parametrize("how", SwitchedOff.HOW)
def test_a_class_that_is_switched_off_hides_no_other_logits(how):
    """Neither those of an intercepted pass, nor those of a layer whose memory goes on by another way."""

    class Keeping(nn.Conv2d):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    def odd(x):
        return x * (1.01 if torch.overrides._get_current_function_mode_stack() else 1.0)

    def changed(y):
        net.conv.last.mul_(-1.0)
        return torch.relu(y)

    own = Around(odd, nn.Conv2d(3, 8, 3))
    with pytest.raises(LayerError, match=r"the logits of image 0 differ from the model's own by .* of 0\.\d+\. Write"):
        contrex.LRP(SwitchedOff(own, how), "input")(images(2).float(), target=1)
    net = Around(nn.Identity(), Keeping(3, 8, 3), after=changed)
    with pytest.raises(LayerError, match=r"memory that SwitchedOff goes on to use and to change, .* \(by 0\.\d+\)"):
        contrex.HiResCAM(SwitchedOff(net, how), "net.conv")(images(2).float(), target=1)


def test_rounding_is_no_difference():
    """Half precision and autocast, and a network that draws random numbers: the same in both passes."""

    def noisy(x):
        return F.dropout(x, 0.3, training=True)

    net = Around(noisy, nn.Conv2d(3, 8, 3)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrex.LRP(net)(images(2).float()).heatmap.isfinite().all()
    assert contrex.LRP(net.bfloat16())(images(2).bfloat16()).heatmap.isfinite().all()


# --- guided backprop and deconvnet ----------------------------------------------------------------------------------

DISGUISES = {
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold in place": lambda x: F.threshold(x, 0.0, 0.0, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 100.0),
    "hardtanh_ of a view": lambda x: F.hardtanh(x.flatten(1), 0.0, 100.0, inplace=True).view_as(x),
    "clamp_ of a view": lambda x: x.transpose(1, 3).clamp_(min=0).transpose(1, 3),
    "non-reentrant checkpoint": lambda x: checkpoint(torch.relu, x, use_reentrant=False),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("method", RELU_RULES)
def test_what_counts_as_a_relu(method, disguise):
    x, maps = images(2), []
    for after in (DISGUISES[disguise], torch.relu):
        torch.manual_seed(5)
        net = Around(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 8, 3), after).double().eval()
        maps.append(RELU_RULES[method](net)(x, target=1))
    assert_same(*maps)


OTHERS = {
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "clamp at another number": lambda x: x.clamp(min=-0.1),
    "threshold at another number": lambda x: F.threshold(x, 0.1, 0.0),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_does_not_count_as_a_relu(other):
    net = Around(nn.Identity(), nn.Conv2d(3, 8, 3), OTHERS[other]).double().eval()
    with pytest.raises(LayerError, match="no ReLU whose backward rule could be changed"):
        contrex.GuidedBackprop(net)(images())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["trace", "script"])
@pytest.mark.parametrize("method", RELU_RULES)
def test_scripted_relus_are_found_or_refused(method, kind):
    """In every call: torch fuses a scripted module after the first ones, and then one node hides its ReLUs."""
    torch.manual_seed(5)
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(*chain, nn.Flatten(), nn.Linear(4, 4)).eval()
    x = images(1, (7, 6)).float()
    hidden = torch.jit.trace(net, x) if kind == "trace" else torch.jit.script(net)
    is_guided = method == "guided"
    expected = input_methods.relu_chain(net, x[0], 1, guided=is_guided).sum(0)
    for _ in range(4):
        found = None
        with contextlib.suppress(LayerError):
            found = RELU_RULES[method](hidden)(x, target=1).heatmap[0]
        assert found is not None or kind == "script"
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    if kind == "script":
        with pytest.raises(LayerError, match="DifferentiableGraphBackward, which hides its ReLUs"):
            RELU_RULES[method](hidden)(x, target=1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("method", RELU_RULES)
def test_a_traced_relu_behind_a_view_is_refused(method):
    mine, _ = twins(EDITS["nn.ReLU behind nn.Flatten"])
    x = images(2, (6, 5))
    with pytest.raises(LayerError, match=r"CopySlices, which hides its ReLUs: explain it without .* traced parts"):
        RELU_RULES[method](torch.jit.trace(mine, x))(x)


def test_an_own_relu_is_refused():
    class MyReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.relu()

        @staticmethod
        def backward(ctx, grad):
            return grad

    net = Around(nn.Identity(), nn.Conv2d(3, 8, 3), lambda x: MyReLU.apply(x).relu()).double().eval()
    with pytest.raises(LayerError, match=r"MyReLUBackward.*hides its ReLUs"):
        contrex.GuidedBackprop(net)(images())
