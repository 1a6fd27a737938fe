"""Excitation backprop and LRP against their equations, published arrays, captum and gradient x input."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain.contract import CHECKS
from contrex.explain.propagation.contrastive_excitation_backprop import ContrastiveExcitationBackprop
from contrex.explain.propagation.excitation_backprop import ExcitationBackprop
from contrex.explain.propagation.lrp import COMPOSITES, LRP, AlphaBeta, Composite, Epsilon, Gamma, ZBox, ZPlus
from explain.networks import images, network
from oracles import cams, propagation
from sampling import crossed, sampled

SHARED = Path(os.environ.get("CONTREX_SHARED", Path(__file__).parents[4] / "shared"))
METHODS = {
    "excitation": ExcitationBackprop,
    "published excitation": lambda model: ExcitationBackprop(model, variant="published-code"),
    "contrastive": ContrastiveExcitationBackprop,
    **{rules: lambda model, rules=rules: LRP(model, rules=rules) for rules in COMPOSITES},
}
LINEAR = [name for name in METHODS if name != "contrastive"]


class Branching(nn.Module):
    """What cannot be hooked: a residual sum, a concatenation, functions instead of modules, changes in place."""

    def __init__(self, *, inplace=True):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.side = nn.Conv2d(4, 2, 1)
        self.fc = nn.Linear(6, 4)
        self.inplace = inplace

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x)), inplace=self.inplace), 2)
        branch = self.norm(self.conv(x))
        if self.inplace:
            branch += x
            branch.relu_()
        else:
            branch = (branch + x).relu()
        x = torch.cat([F.relu(self.side(branch)), F.avg_pool2d(branch, 3, 1, 1)], 1)
        return self.fc(x.mean((2, 3)))


def branching(**options):
    torch.manual_seed(3)
    net = Branching(**options).double().eval()
    for norm in (net.stem_norm, net.norm):
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 1.5)
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    return net


def folded(conv, norm):
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = 0 if conv.bias is None else conv.bias
    return conv.weight * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias


def expected_relevance(net, image, start, rules):
    """Relevance of the pixels of `Branching`, layer by layer, for rules by kind: first, conv, dense, pool, sum."""
    (w1, b1), (w2, b2) = folded(net.stem, net.stem_norm), folded(net.conv, net.norm)
    stem = F.conv2d(image, w1, b1, 2, 1).relu()
    x = F.max_pool2d(stem, 2)
    inner = F.conv2d(x, w2, b2, 1, 1)
    branch = (inner + x).relu()
    side = net.side(branch).relu()
    pooled = F.avg_pool2d(branch, 3, 1, 1)
    joined = torch.cat([side, pooled], 1)
    features = joined.mean((2, 3))

    def back(rule, function, values, relevance, bias=None):
        w = propagation.matrix(function, values.shape[1:])
        outputs = relevance.numel()
        b = torch.zeros(outputs) if bias is None else bias.repeat_interleave(outputs // len(bias))
        return rule(w, b, values.flatten(), relevance.flatten()).reshape(values.shape)

    relevance = back(rules["dense"], lambda v: F.linear(v, net.fc.weight), features, start, net.fc.bias)
    relevance = back(rules["pool"], lambda v: v.mean((2, 3)), joined, relevance)
    to_side, to_pooled = relevance.split([2, 4], 1)
    relevance = back(rules["conv"], lambda v: F.conv2d(v, net.side.weight), branch, to_side, net.side.bias)
    relevance = relevance + back(rules["pool"], lambda v: F.avg_pool2d(v, 3, 1, 1), branch, to_pooled)
    to_inner, to_x = propagation.add(rules["sum"], [inner.flatten(), x.flatten()], relevance.flatten())
    relevance = to_x.reshape(x.shape) + back(rules["conv"], lambda v: F.conv2d(v, w2, None, 1, 1), x, to_inner, b2)
    relevance = propagation.max_pool(stem[0], 2, relevance)[None]
    return back(rules["first"], lambda v: F.conv2d(v, w1, None, 2, 1), image, relevance, b1)


def box(image):
    low, high = (bound.expand_as(image).flatten() for bound in (image.amin((2, 3), True), image.amax((2, 3), True)))
    return propagation.z_box(low, high)


EPSILON = {
    **dict.fromkeys(("first", "conv", "dense"), propagation.epsilon(1e-6)),
    **dict.fromkeys(("pool", "sum"), propagation.epsilon(1e-9)),
}
EXPECTED = {
    "excitation": lambda image: {**dict.fromkeys(EPSILON, propagation.excitation), "first": propagation.z_plus},
    "epsilon": lambda image: EPSILON,
    "epsilon-plus": lambda image: EPSILON | {"first": propagation.z_plus, "conv": propagation.z_plus},
    "epsilon-alpha-beta": lambda image: EPSILON | dict.fromkeys(("first", "conv"), propagation.alpha_beta(2.0)),
    "epsilon-gamma-box": lambda image: EPSILON | {"first": box(image), "conv": propagation.gamma(0.25)},
}


@sampled(one_in=2)
@torch.no_grad()
@pytest.mark.parametrize("contrast", ["weighted", *(pytest.param(c, marks=pytest.mark.slow) for c in (None, 2))])
@pytest.mark.parametrize("method", EXPECTED)
def test_branches_in_place_changes_and_folded_norms_against_explicit_sums(method, contrast):
    """No module is at the sums, the concatenation and the pooling: the oracle writes each of them out."""
    net, x, target = branching(), images(2, (8, 12)), [0, 3]
    is_excitation = method == "excitation"
    explainer = ExcitationBackprop(net, "input") if is_excitation else LRP(net, rules=method)
    why = explainer(x, target=target, contrast=contrast)
    for index, t in enumerate(target):
        image = x[index : index + 1]
        starts = torch.eye(4).double() if is_excitation else torch.diag(why.logits[index])
        maps = [expected_relevance(net, image, start, EXPECTED[method](image))[0].sum(0) for start in starts]
        expected = cams.contrasted(maps, why.logits[index].tolist(), t, contrast)
        torch.testing.assert_close(why.heatmap[index], expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
        assert expected.abs().max() > 1e-3


def test_published_excitation_passes_batch_norm_and_keeps_signs():
    net, x = branching(), images(1, (8, 12))
    found = ExcitationBackprop(net, "stem_norm", variant="published-code")(x, target=2).heatmap[0]
    with torch.no_grad():
        stem = net.stem_norm(net.stem(x)).relu()
        pooled = F.max_pool2d(stem, 2)
        inner = net.norm(net.conv(pooled))
        branch = (inner + pooled).relu()
        joined = torch.cat([net.side(branch).relu(), F.avg_pool2d(branch, 3, 1, 1)], 1)

        def back(function, values, relevance):
            w = propagation.matrix(function, values.shape[1:])
            found = propagation.signed_excitation(w, torch.zeros(len(w)), values.flatten(), relevance.flatten())
            return found.reshape(values.shape)

        start = torch.eye(4).double()[2]
        relevance = back(lambda v: F.linear(v, net.fc.weight), joined.mean((2, 3)), start)
        relevance = back(lambda v: v.mean((2, 3)), joined, relevance)
        to_side, to_pooled = relevance.split([2, 4], 1)
        relevance = back(lambda v: F.conv2d(v, net.side.weight.clamp(min=0)), branch, to_side)
        relevance = relevance + back(lambda v: F.avg_pool2d(v, 3, 1, 1), branch, to_pooled)
        parts = [inner.flatten(), pooled.flatten()]
        to_inner, to_x = propagation.add(propagation.signed_excitation, parts, relevance.flatten())
        relevance = to_x.reshape(pooled.shape) + back(
            lambda v: F.conv2d(v, net.conv.weight, None, 1, 1), pooled, to_inner
        )
        expected = propagation.max_pool(stem[0], 2, relevance).sum(0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    assert not torch.allclose(found, ExcitationBackprop(net, "stem_norm")(x, target=2).heatmap[0])


def test_golden_excitation_backprop():
    path = SHARED / "golden" / "excitation_backprop_a.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    golden = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    names = ["conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "pool", "classifier", "flatten"]
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 1, 1)]
    layers += [nn.ReLU(), nn.AvgPool2d(8), nn.Conv2d(16, 4, 1), nn.Flatten()]
    net = nn.Sequential()
    for name, layer in zip(names, layers, strict=True):
        net.add_module(name, layer)
    net.load_state_dict(
        {f"{n}.{k}": golden[f"w_{n}_{k}"] for n in names for k in ("weight", "bias") if f"w_{n}_{k}" in golden}
    )
    x, target = golden["images"], golden["target"]
    for layer in ("relu1", "relu2", "relu3"):
        found = ExcitationBackprop(net, layer)(x, target=target).heatmap
        torch.testing.assert_close(found, golden[f"ebp_{layer}"][:, 0], rtol=1e-5, atol=1e-7)
    for layer in ("relu1", "relu2"):
        for contrast_layer in (None, "pool"):
            explainer = ContrastiveExcitationBackprop(net, layer, contrast_layer=contrast_layer)
            found = explainer(x, target=target).positive().heatmap
            torch.testing.assert_close(found, golden[f"contrastive_ebp_{layer}"][:, 0], rtol=1e-5, atol=1e-7)


# --- identities -----------------------------------------------------------------------------------------------------


def without_biases(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return net


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_epsilon_is_gradient_times_input_where_nothing_has_a_bias(name):
    torchvision = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    net = without_biases(getattr(torchvision, name)(num_classes=3).double().eval())
    x = images(1, (40, 56)).requires_grad_()
    logits = net(x)
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 2], x)
    rules = Composite(Epsilon(0.0), Epsilon(0.0), Epsilon(0.0))
    found = LRP(net, rules=rules)(x.detach(), target=1, contrast=2).heatmap
    expected = (gradient * x).sum(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@sampled(one_in=2)
@pytest.mark.parametrize("rules", COMPOSITES)
def test_relevance_is_conserved(rules):
    """Without biases, which keep their share, the map sums to the logit, at the input and at every layer."""
    net, x = without_biases(branching()), images(2, (8, 12))
    for layer in ("input", "stem", "stem_norm"):
        why = LRP(net, layer, rules=rules)(x, target=1)
        torch.testing.assert_close(why.heatmap.sum((1, 2)), why.logits[:, 1], rtol=1e-4, atol=1e-6)


def test_probability_is_conserved():
    x = images(2, (8, 12))
    for layer in ("stem", "stem_norm", "input"):
        found = ExcitationBackprop(branching(), layer)(x, target=2).heatmap
        assert (found >= 0).all()
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(2).double(), rtol=1e-6, atol=0)


class Plain(nn.Module):
    """What captum has rules for."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU()),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.trunk(x).flatten(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ours", "theirs"), [(Epsilon(1e-9), "EpsilonRule"), (Gamma(0.25), "GammaRule"), (ZPlus(), "Alpha1_Beta0_Rule")]
)
def test_agrees_with_captum(ours, theirs):
    captum = pytest.importorskip("captum.attr")
    rule_of = getattr(pytest.importorskip("captum.attr._utils.lrp_rules"), theirs)
    torch.manual_seed(0)
    net = Plain().double()
    if not isinstance(ours, Epsilon):  # captum does not count a bias as one more contribution
        without_biases(net)
    x, target = images(3, (8, 12)).abs(), torch.tensor([0, 3, 1])
    found = LRP(net, rules=Composite(ours, ours, Epsilon(1e-9)))(x, target=target).heatmap
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.rule = rule_of()
    expected = captum.LRP(net).attribute(x, target).sum(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


# --- contrasts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "start"), crossed(LINEAR, ["logit", "one"], one_in=2))
def test_both_roads_of_proposition_3(method, start):
    net, x = branching(), images(3, (8, 12))
    explainer = LRP(net, rules=method, start=start) if method in COMPOSITES else METHODS[method](net)
    many = explainer.classes(x, classes=[0, 1, 2, 3])
    for contrast in ("mean", "max", "weighted", 2):
        found = explainer(x, target=0, contrast=contrast).heatmap
        for i in range(3):
            expected = cams.contrasted(list(many.heatmap[i]), many.logits[i].tolist(), 0, contrast)
            torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-8)


def test_start_scales_the_map_of_one_class_and_not_that_of_a_contrast():
    net, x = branching(), images(2, (8, 12))
    by_logit, by_one = (LRP(net, start=start)(x, target=1) for start in ("logit", "one"))
    torch.testing.assert_close(by_logit.heatmap, by_one.heatmap * by_logit.logits[:, 1, None, None])
    contrasts = [LRP(net, start=start)(x, target=1, contrast=2).heatmap[0].flatten() for start in ("logit", "one")]
    assert torch.nn.functional.cosine_similarity(*contrasts, dim=0) < 0.999


def test_score_of_epsilon_is_the_gradient_of_the_score_times_input():
    net, x = without_biases(branching()), images(2, (8, 12)).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).log_softmax(1)[:, 1].sum(), x)
    found = LRP(net, rules=Composite(Epsilon(0.0), Epsilon(0.0), Epsilon(0.0)))(x, target=1, score="log_probability")
    torch.testing.assert_close(found.heatmap, (gradient * x).sum(1).detach(), rtol=1e-5, atol=1e-7)


def test_a_probability_in_contrastive_excitation_is_the_difference_of_two_mixtures():
    net, x = network("pooled"), images(1)
    explainer = ContrastiveExcitationBackprop(net, "act")
    p = net(x).softmax(1).detach()[0]
    one = -p * p[1]
    one[1] += p[1]
    expected = torch.zeros(4, 6).double()
    activation = net.act(net.features(x)).detach()[0].flatten(1)
    for sign in (1, -1):
        mixture = (sign * one).clamp(min=0)
        walks = []
        for flip in (1, -1):
            w = (flip * net.head.fc.weight.detach()).clamp(min=0)
            features = activation.mean(1)
            to_channels = features * (w.T @ (mixture / (w @ features)))
            walks.append((activation * (to_channels / activation.sum(1).clamp(min=1e-300))[:, None]).sum(0))
        expected += sign * (walks[0] - walks[1]).reshape(4, 6)
    torch.testing.assert_close(explainer(x, target=1, score="probability").heatmap[0], expected)


# --- rules by layer -------------------------------------------------------------------------------------------------


def test_rules_by_name_go_before_the_kind():
    net, x = network("mlp"), images()
    named = LRP(net, rules=Composite(named={"features.2": ZPlus(), "head.2": AlphaBeta(1.0)}))(x).heatmap
    plain = LRP(net, rules=Composite())(x).heatmap
    assert not torch.allclose(named, plain)
    everywhere = LRP(net, rules=Composite(ZPlus(), ZPlus(), ZPlus()))(x).heatmap
    layers = ("features.0", "features.2", "head.2", "head.4")
    torch.testing.assert_close(LRP(net, rules=Composite(named=dict.fromkeys(layers, ZPlus())))(x).heatmap, everywhere)


@pytest.mark.parametrize("rule", [Epsilon(), Gamma(), ZPlus(), AlphaBeta()])
def test_batch_norm_before_a_dense_layer_is_folded_into_it(rule):
    torch.manual_seed(0)
    norm, fc = nn.BatchNorm1d(6), nn.Linear(6, 4)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    head = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*head, norm, fc).double().eval()
    merged = nn.Linear(6, 4).double()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    merged.weight.data = fc.weight.data * scale
    merged.bias.data = fc.bias.data + fc.weight.data @ (norm.bias.data - norm.running_mean * scale)
    expected = LRP(nn.Sequential(*head, merged).eval(), rules=Composite(dense=rule))(images()).heatmap
    torch.testing.assert_close(LRP(net, rules=Composite(dense=rule))(images()).heatmap, expected)


class Product(nn.Module):
    """A dense layer that is no `nn.Linear`: data times a parameter, by an equation or a function."""

    def __init__(self, function, *size):
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.randn(*size))

    def forward(self, x):
        return self.function(x, self.w)


def with_norm(product, norm, *before):
    """A network with batch norm behind a product, and no other layer that shifts."""
    torch.manual_seed(0)
    norm.running_mean.uniform_(-0.3, 0.3)
    norm.running_var.uniform_(0.3, 2)
    nn.init.uniform_(norm.weight, -2, 2)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4, bias=False), nn.ReLU(), *before)
    head = nn.Sequential(nn.Flatten(), nn.LazyLinear(4, bias=False))
    net = nn.Sequential(trunk, product, norm, nn.ReLU(), head).double().eval()
    net(images(1, (16, 16)))
    return net


AXES = {
    "x @ W": lambda: (Product(torch.matmul, 4, 4), nn.BatchNorm1d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "x @ W, not square": lambda: (Product(torch.mm, 4, 6), nn.BatchNorm1d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "W @ x": lambda: (Product(lambda x, w: w @ x, 4, 4), nn.BatchNorm1d(4), nn.Flatten(2)),
    "co": lambda: (Product(lambda x, w: torch.einsum("nchw,co->nohw", x, w), 4, 4), nn.BatchNorm2d(4)),
    "oc": lambda: (Product(lambda x, w: torch.einsum("nchw,oc->nohw", x, w), 4, 4), nn.BatchNorm2d(4)),
    "depthwise": lambda: (Product(lambda x, w: torch.einsum("nchw,c->nchw", x, w), 4), nn.BatchNorm2d(4)),
    "rows": lambda: (nn.Linear(4, 4, bias=False), nn.BatchNorm2d(4)),
    "rows, not square": lambda: (nn.Linear(4, 5, bias=False), nn.BatchNorm2d(4)),
    "tokens": lambda: (nn.Linear(16, 4, bias=False), nn.BatchNorm1d(4), nn.Flatten(2)),
}


@pytest.mark.parametrize("name", AXES)
def test_batch_norm_of_other_axes_than_the_weights_have(name):
    """Epsilon is gradient x input, whether or not batch norm can be folded into what is before it."""
    net, x = with_norm(*AXES[name]()), images(1, (16, 16))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    rules = Composite(Epsilon(0.0), Epsilon(0.0), Epsilon(0.0), normalisation=Epsilon(0.0))
    found = LRP(net, rules=rules)(x.detach(), target=1).heatmap
    expected = (gradient * x).sum(1).detach()
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


BOTH_GAMMA = Composite(convolution=Gamma(), dense=Gamma())
"""A product is dense where it stands for a convolution."""


@pytest.mark.parametrize("method", [ExcitationBackprop, lambda net, layer: LRP(net, layer, rules=BOTH_GAMMA)])
@pytest.mark.parametrize("name", ["x @ W", "W @ x", "co", "oc"])
def test_batch_norm_is_folded_into_a_product_as_into_a_convolution(name, method):
    net, x = with_norm(*AXES[name]()), images(1, (16, 16))
    weight = net[1].w.detach() if name in ("oc", "W @ x") else net[1].w.detach().T
    same = nn.Conv1d(4, 4, 1, bias=False) if name == "W @ x" else nn.Conv2d(4, 4, 1, bias=False)
    same = nn.Linear(4, 4, bias=False) if name == "x @ W" else same
    same.weight.data = weight.reshape(same.weight.shape)
    plain = nn.Sequential(net[0], same, *net[2:]).eval()
    expected, found = (method(one, "input")(x, target=1).heatmap for one in (plain, net))
    torch.testing.assert_close(found, expected)


def test_a_convolution_of_one_image_without_its_axis():
    torch.manual_seed(0)
    single, batch = (
        lambda x, w: F.conv2d(x[0], w, w.sum((1, 2, 3))).relu()[None],
        lambda x, w: F.conv2d(x, w, w.sum((1, 2, 3))).relu(),
    )
    products = Product(single, 4, 3, 3, 3).double(), Product(batch, 4, 3, 3, 3).double()
    products[1].w.data, fc = products[0].w.data, nn.LazyLinear(3).double()
    found, expected = (LRP(nn.Sequential(p, nn.Flatten(), fc).eval(), rules="epsilon") for p in products)
    found, expected = (explainer(images(1, (6, 6)), target=1).heatmap for explainer in (found, expected))
    torch.testing.assert_close(found, expected)


def test_the_box_must_enclose_the_images():
    net, x = branching(), images(2, (8, 12))
    low, high = float(x.min()), float(x.max())
    wide = LRP(net, rules=Composite(first=ZBox(low - 1, (high, high + 1, high))))(x).heatmap
    assert not torch.allclose(wide, LRP(net, rules=Composite(first=ZBox()))(x).heatmap)
    with pytest.raises(ArgumentError, match="must enclose the images"):
        LRP(net, rules=Composite(first=ZBox(0.0, 1.0)))(x)
    with pytest.raises(ArgumentError, match="one number or 3"):
        LRP(net, rules=Composite(first=ZBox((0.0, 0.0), 1.0)))(x)


MEAN, DEVIATION = (torch.tensor(c).double()[:, None, None] for c in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))


class Preparing(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def by_channel(x):
    """As torchvision's Inception does."""
    return torch.cat([x[:, c : c + 1] * (0.2 + c) + (0.1 * c - 0.3) for c in range(3)], 1)


def first_norm():
    norm = nn.BatchNorm2d(3).double().eval()
    norm.running_mean.copy_(MEAN.flatten())
    norm.running_var.copy_(DEVIATION.flatten() ** 2)
    return norm


NORMALISING = {
    "constants": lambda x: (x - MEAN) / DEVIATION,
    "range": lambda x: 2 * x - 1,
    "inverted": lambda x: 1 + x * -1,
    "in place": lambda x: x.clone().sub_(MEAN).div_(DEVIATION),
    "moved": lambda x: F.pad((x - MEAN)[:, :, 1:-1, 1:-1], (1, 1, 1, 1)) / DEVIATION,
    "channels": by_channel,
    "batch norm": first_norm(),
}


def pixels():
    """Images of which each has a pixel of zeros, and one that normalising makes zero."""
    x = images(2, (8, 12)).sigmoid()
    x[:, :, 3, 3] = 0
    x[:, :, 4, 4] = MEAN[:, 0, 0]
    return x


@pytest.mark.parametrize("name", NORMALISING)
@pytest.mark.parametrize(
    "method",
    [
        lambda net: LRP(net, rules="epsilon-gamma-box"),
        lambda net: LRP(net, rules=Composite(first=ZBox(-5.0, (5.0, 6.0, 7.0)))),
        lambda net: ExcitationBackprop(net, "input"),
    ],
)
def test_a_network_that_normalises_its_images(name, method):
    """The map is that of the network behind it for the normalised images."""
    net, x = network("mlp"), pixels()
    whole = nn.Sequential(Preparing(NORMALISING[name]), net).eval()
    found = method(whole)(x, target=1).heatmap
    expected = method(net)(NORMALISING[name](x).detach(), target=1).heatmap
    if name == "moved":
        expected = F.pad(expected[:, 1:-1, 1:-1], (1, 1, 1, 1))
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [{"rules": "epsilon"}, {"rules": "epsilon-gamma-box", "gamma": 0.0}])
def test_a_shift_by_the_network_keeps_its_share_under_other_rules_than_the_box(options):
    """Epsilon is gradient x input: of the images, not of the normalised ones."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(240, 3)).double()
    whole, x = nn.Sequential(Preparing(NORMALISING["constants"]), net).eval(), pixels().requires_grad_()
    (gradient,) = torch.autograd.grad(whole(x)[:, 1].sum(), x)
    found = LRP(whole, **options)(x.detach(), target=1).heatmap
    expected = (gradient * x).sum(1).detach()
    expected[:, 4, 4] = found[:, 4, 4]  # zero behind the shift, where the quotient has no value
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "function", [lambda x: F.interpolate(x, (6, 6)), lambda x: x - x.mean((2, 3), keepdim=True), lambda x: x.relu()]
)
def test_the_box_needs_a_layer_that_takes_the_images(function):
    whole, x = nn.Sequential(Preparing(function), network()).eval(), images()
    with pytest.raises(LayerError, match="no layer of Sequential takes the images, as `first`"):
        LRP(whole, rules="epsilon-gamma-box")(x)
    layer = LRP(whole, "1.features", rules="epsilon-gamma-box")
    assert layer(x).heatmap.abs().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: LRP(net, rules="epsilon-plas"), "`rules` must be one of"),
        (lambda net: LRP(net, rules=Composite(named={"stemm": ZPlus()})), "Did you mean 'stem'"),
        (lambda net: LRP(net, start="two"), "`start` must be one of"),
        (lambda net: ExcitationBackprop(net, variant="torchray"), "`variant` must be one of"),
    ],
)
def test_unknown_names(make, message):
    with pytest.raises(UnknownNameError, match=message):
        make(branching())


def test_parameters_of_rules_are_checked():
    for make in (lambda: Epsilon(-1.0), lambda: Gamma(-1.0), lambda: AlphaBeta(0.5)):
        with pytest.raises(ArgumentError, match="must"):
            make()


# --- every function has a rule or is an error -----------------------------------------------------------------------


class Gated(nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Normalised(nn.Module):
    def forward(self, x):
        return x / x.sum(1, keepdim=True)


class Multiplied(nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True)


class Scanned(nn.Module):
    def forward(self, x):
        return x.cumsum(1)


class NormOnly(nn.Module):
    """A norm that does not divide: no relevance could pass."""

    def forward(self, x):
        return torch.cat([x[:, 1:], x.norm(dim=1, keepdim=True)], 1)


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Opaque(nn.Module):
    def forward(self, x):
        return OwnFunction.apply(x)


OF_LRP_ONLY = [
    (nn.Softmax(1), "softmax, in `odd` .Softmax."),
    (nn.GroupNorm(2, 6), "group_norm, in `odd` .GroupNorm."),
    (Multiplied(), "mul, in `odd` .Multiplied."),
    (Normalised(), "div.*in `odd` .Normalised."),
]
OF_NONE = [
    (Scanned(), "cumsum, in `odd` .Scanned."),
    (NormOnly(), "in `odd` .NormOnly."),
    (Opaque(), "cannot be intercepted|OwnFunction"),
    (nn.BatchNorm2d(6, track_running_stats=False), "batch_norm, in `odd`"),
]


@pytest.mark.parametrize(
    "case",
    crossed(
        [(method, *one) for method in METHODS for one in OF_NONE + (OF_LRP_ONLY if method not in COMPOSITES else [])],
        one_in=3,
    ),
)
def test_a_function_without_a_rule_is_named(case):
    method, module, message = case
    net = network()
    net.features.append(nn.ReLU())
    net.odd = module.double()
    net.act = nn.Sequential(nn.ReLU(), net.odd)
    net.eval()
    explainer = METHODS[method](net)
    if isinstance(explainer, ExcitationBackprop):
        explainer._asked = net.features
    with pytest.raises(LayerError, match=message.replace("`odd`", "`(odd|act.1)`")):
        explainer(images())


def test_what_comes_before_the_layer_needs_no_rule():
    net = network()
    net.features.append(nn.GroupNorm(2, 6).double())
    for method in (ExcitationBackprop, ContrastiveExcitationBackprop, LRP):
        assert method(net, "act")(images()).heatmap.abs().max() > 0


@sampled(one_in=3)
@pytest.mark.parametrize("method", METHODS)
def test_changes_in_place_change_nothing(method):
    x = images(2, (8, 12))
    expected = METHODS[method](branching(inplace=False))(x)
    found = METHODS[method](branching(inplace=True))(x)
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.logits, expected.logits)


def test_arithmetic_with_constants():
    """Shifted, scaled, negated sums: logits stay exact and epsilon stays gradient x input but for the shift's share."""

    class Arithmetic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")
            self.scale = nn.Parameter(torch.tensor([0.5, 2.0, 1.0]).double()[:, None, None])

        def forward(self, x):
            x = 2 * x * self.scale / 3
            y = self.net.act(self.net.features(x - (0.5 * x)))
            return self.net.head(0.25 * y + y - 0.0)

    net, x = Arithmetic().eval(), images()
    expected = Composite(Epsilon(0.0), Epsilon(0.0), Epsilon(0.0))
    found = LRP(net, rules=expected)(x, target=1)
    torch.testing.assert_close(found.logits, net(x).detach())
    inner = net.net
    scaled = LRP(nn.Sequential(inner.features, inner.act, Scale(1.25), inner.head), rules=expected)
    pixels = x * net.scale.detach() / 3
    torch.testing.assert_close(found.heatmap, scaled(pixels, target=1).heatmap, rtol=1e-4, atol=1e-7)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("resnet18", {}, "layer3"),
        pytest.param("vgg11_bn", {"init_weights": False}, "features.27", marks=pytest.mark.slow),
        ("shufflenet_v2_x0_5", {}, "stage3"),
    ],
)
def test_default_layer_of_excitation_backprop(name, options, layer):
    """On a finer grid than the last, where every walk passes: not one branch of several."""
    torchvision = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    explainer = ExcitationBackprop(getattr(torchvision, name)(num_classes=3, **options).eval())
    why = explainer(images(1, (64, 96)).float())
    assert explainer.layer == layer
    assert why.heatmap.shape[1:] == (4, 6)
    assert float(why.heatmap.sum()) == pytest.approx(1, abs=1e-3)


def test_several_layers_from_one_pass():
    net, x = network("mlp"), images()
    for method in (ExcitationBackprop, ContrastiveExcitationBackprop, LRP):
        many = method(net).layers(x, ["features.1", "act"], target=1, contrast=2)
        for name, why in many.items():
            torch.testing.assert_close(why.heatmap, method(net, name)(x, target=1, contrast=2).heatmap)


def test_contrast_layer_behind_the_layer():
    """Where no probability is lost on the way, it does not matter which one it is."""
    net, x = network("mlp"), images()
    default = ContrastiveExcitationBackprop(net, "features.1")(x).heatmap
    earlier = ContrastiveExcitationBackprop(net, "features.1", contrast_layer="act")(x).heatmap
    torch.testing.assert_close(default, earlier)
    with pytest.raises(LayerError, match=r"`contrast_layer` must run once between `layer` 'act'.*'features.1'"):
        ContrastiveExcitationBackprop(net, "act", contrast_layer="features.1")(x)


def test_the_dual_is_the_class_with_its_weights_flipped():
    net, x = network("pooled"), images()
    flipped = network("pooled")
    flipped.head.fc.weight.data.neg_()
    ours = ContrastiveExcitationBackprop(net, "act")(x, target=1).heatmap
    one, dual = (ExcitationBackprop(model, "act")(x, target=1).heatmap for model in (net, flipped))
    torch.testing.assert_close(ours, one - dual)


class Heads(nn.Module):
    """Two layers with weights behind the same features; `join` makes the logits of them."""

    def __init__(self, join):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.fc, self.box, self.join = nn.Linear(6, 3), nn.Linear(6, 3), join

    def forward(self, x):
        return self.join(self, self.features(x).mean((2, 3)))


def heads(join):
    return Heads(join).double().eval()


def test_the_classifier_is_what_the_logits_come_from():
    """What runs behind it, for something else, has no part."""
    x = images()
    expected = ContrastiveExcitationBackprop(heads(lambda net, f: net.fc(f)), "features.1")(x, target=1).heatmap
    for contrast_layer in (None, "features.3"):
        for join in (
            lambda net, f: {"logits": net.fc(f), "box": net.box(f)},
            lambda net, f: {"box": net.box(f), "logits": net.fc(f)},
        ):
            explainer = ContrastiveExcitationBackprop(heads(join), "features.1", contrast_layer=contrast_layer)
            found = explainer(x, target=1).heatmap
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("target", [1, 5])
def test_each_of_several_classifiers_side_by_side_is_flipped(target):
    def merged(net, f):
        weight, bias = (torch.cat([getattr(one, name) for one in (net.fc, net.box)]) for name in ("weight", "bias"))
        return F.linear(f, weight, bias)

    x = images()
    found, expected = (
        ContrastiveExcitationBackprop(heads(join), "features.1")(x, target=target).heatmap
        for join in (lambda net, f: torch.cat([net.fc(f), net.box(f)], 1), merged)
    )
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("join", "options", "message"),
    [
        (lambda net, f: net.fc(f) + net.box(f), {}, "sums or averages of the layers 'box', 'fc'"),
        (lambda net, f: torch.stack([net.fc(f), net.box(f)]).mean(0), {}, "sums or averages of the layers 'box', 'fc'"),
        (lambda net, f: net.fc(f) + f[:, :3], {"layer": "features.3"}, "'fc'.*must have all that comes from `layer`"),
        (lambda net, f: torch.cat([net.fc(f), net.box(f + 0)], 1), {}, "an input of its own: pass `contrast_layer`"),
        (lambda net, f: net.fc(f), {"contrast_layer": "fc"}, "must have all that comes from `contrast_layer`"),
        (lambda net, f: f, {"layer": "features.3"}, "none"),
    ],
)
def test_logits_without_a_dual_are_refused(join, options, message):
    with pytest.raises(LayerError, match=message):
        ContrastiveExcitationBackprop(heads(join), **{"layer": "features.1", **options})(images())


@pytest.mark.parametrize("net", [branching, pytest.param(lambda: network("mlp"), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "check"), crossed(METHODS, CHECKS, one_in=8))
def test_contract(method, check, net):
    CHECKS[check](METHODS[method], net(), images())
