"""AttnLRP's rules against their equations, against gradient x input with parts held constant, and against lxt."""

import importlib
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.overrides import TorchFunctionMode

import contrex
from contrex.errors import ArgumentError, LayerError, UnknownNameError
from contrex.explain.contract import CHECKS
from contrex.explain.propagation.excitation_backprop import ExcitationBackprop
from contrex.explain.propagation.lrp import LRP, Composite, Epsilon, Gamma, ZPlus
from contrex.gamma_search import layer_groups
from explain.networks import images
from oracles import attention_relevance, propagation
from sampling import crossed, sampled

timm = pytest.importorskip("timm")
decode_arch_def = pytest.importorskip("timm.models._efficientnet_builder").decode_arch_def
SqueezeExcite = pytest.importorskip("timm.models._efficientnet_blocks").SqueezeExcite
EXACT = Composite(Epsilon(0.0), Epsilon(0.0), Epsilon(0.0))


def settled(net, spread=0.3):
    """A network in float64 whose biases, norms and position embeddings matter, the same each time."""
    torch.manual_seed(0)
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1 and "embed" not in name and "token" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            is_scale = name.endswith(("weight", "gamma"))
            nn.init.normal_(parameter, mean=float(is_scale and parameter.ndim == 1), std=spread)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return net.double().eval()


def vit(**options):
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2, **options}
    return settled(timm.models.VisionTransformer(img_size=8, patch_size=4, num_classes=4, **options))


@torch.no_grad()
@pytest.mark.parametrize(
    ("constant", "fused"),
    [("nothing", True), pytest.param("nothing", False, marks=pytest.mark.slow), ("attention", False)],
)
def test_a_whole_vision_transformer_layer_by_layer(constant, fused):
    net, x = vit(), images(1, (8, 8))
    for block in net.blocks:
        block.attn.fused_attn = fused
    why, is_constant = LRP(net, rules="epsilon", constant=constant)(x, target=1, contrast=2), constant == "attention"
    start = torch.tensor([0.0, 1.0, -1.0, 0.0]) * why.logits[0]
    expected = attention_relevance.vit_relevance(net, x[0], start, is_constant=is_constant).sum(0)
    torch.testing.assert_close(why.heatmap[0], expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))


# --- one rule at a time: at a layer, behind which there is only the rule and a dense head ----------------------------


class Behind(nn.Module):
    """A layer whose output [N,6,1,4] is explained, a function of it, and a dense head."""

    def __init__(self, function, size):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.function, self.head = nn.Conv2d(3, 6, 1), function, nn.Linear(size, 3)

    def forward(self, x):
        return self.head(self.function(self.layer(x)).flatten(1))


def at_layer(function, size, **options):
    """The relevance [6,1,4] of the layer's output, that output and the relevance behind the function."""
    net = Behind(function, size).double().eval()
    if isinstance(function, nn.Module):
        settled(function)
    x = images(1, (1, 4))
    found = LRP(net, net.layer, rules=options.pop("rules", "epsilon"), **options)(x, target=1)
    with torch.no_grad():
        output = net.layer(x)[0]
        values = function(net.layer(x)).flatten()
        start = torch.zeros(3).double()
        start[1] = found.logits[0, 1]
        relevance = propagation.epsilon(1e-6)(net.head.weight, net.head.bias, values, start)
    return found.heatmap[0], output, relevance


@torch.no_grad()
def test_softmax():
    found, x, relevance = at_layer(lambda x: x.softmax(1), 24)
    columns = zip(x.reshape(6, 4).T, relevance.reshape(6, 4).T, strict=True)
    expected = torch.stack([attention_relevance.softmax(*column).sum() for column in columns])
    torch.testing.assert_close(found, expected.reshape(1, 4))


@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :3].flatten(2).transpose(1, 2) @ x[:, 3:].flatten(2),
        lambda x: torch.bmm(x[:, :3].flatten(2).transpose(1, 2), x[:, 3:].flatten(2)),
        lambda x: torch.einsum("nca,ncb->nab", x[:, :3].flatten(2), x[:, 3:].flatten(2)),
        lambda x: torch.einsum("nca,ncb->nab", [x[:, :3].flatten(2), x[:, 3:].flatten(2)]),
    ],
)
def test_products_of_matrices(function):
    found, x, relevance = at_layer(function, 16)
    a, b = x.reshape(6, 4)[:3].T, x.reshape(6, 4)[3:]
    of_a, of_b = attention_relevance.matmul(a, b, relevance.reshape(4, 4))
    torch.testing.assert_close(found[0], of_a.sum(1) + of_b.sum(0))


@torch.no_grad()
def test_layer_norm_of_channels_and_group_norm():
    norm = timm.layers.LayerNorm2d(6)
    found, x, relevance = at_layer(norm, 24)
    tokens, of_tokens = x.reshape(6, 4).T, relevance.reshape(6, 4).T
    expected = attention_relevance.layer_norm(tokens, norm.weight, norm.bias, norm.eps, of_tokens)
    torch.testing.assert_close(found[0], expected.sum(1))
    norm = nn.GroupNorm(2, 6)
    found, x, relevance = at_layer(norm, 24)
    expected = torch.zeros(6, 4).double()
    for group in range(2):  # one layer norm of 3 channels x 4 cells
        places, channels = slice(12 * group, 12 * group + 12), slice(3 * group, 3 * group + 3)
        w, b = (one[channels].repeat_interleave(4) for one in (norm.weight, norm.bias))
        of_group = attention_relevance.layer_norm(x.reshape(1, 24)[:, places], w, b, norm.eps, relevance[None, places])
        expected[channels] = of_group.reshape(3, 4)
    torch.testing.assert_close(found[0], expected.sum(0))


def rescaled(x):
    return x / x.norm(dim=1, keepdim=True)


def by_root(x):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


@sampled(one_in=3)
@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [rescaled, by_root, lambda x: F.normalize(x, dim=1), lambda x: F.rms_norm(x.transpose(1, 3), (6,)).transpose(1, 3),
     nn.GELU(), nn.SiLU(), nn.Hardswish(), lambda x: -x, lambda x: 1 - (1 + x.neg()), lambda x: x * x],
)  # fmt: skip
def test_what_passes_relevance_as_it_is(function):
    """Elementwise functions, and division by a statistic of the data (Proposition 3.4)."""
    found, _, relevance = at_layer(function, 24)
    torch.testing.assert_close(found, relevance.reshape(6, 4).sum(0)[None], rtol=1e-5, atol=1e-8)


@sampled(one_in=3)
@torch.no_grad()
@pytest.mark.parametrize("constant", ["nothing", "gates", "both"])
@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid, lambda x: F.relu6(x + 0.0) / 6, nn.Sigmoid()])
def test_gates(gate, constant):
    """Half of the relevance goes to the gate, or none."""
    found, _, relevance = at_layer(lambda x: x[:, :3] * gate(x[:, 3:]), 12, constant=constant)
    torch.testing.assert_close(found[0], relevance.reshape(3, 4).sum(0))  # both halves are in the same cell
    found, _, relevance = at_layer(lambda x: gate(x[:, 3:].flip(3)).mul(x[:, :3]), 12, constant=constant)
    each = relevance.reshape(3, 4).sum(0)
    torch.testing.assert_close(found[0], (each + each.flip(0)) / 2 if constant == "nothing" else each)


def moved(x):
    """Chosen, joined, mirrored and copied cells: as autograd's gradient of their places."""
    x = torch.roll(x, 1, 3)
    first, second = x.chunk(2, 1)
    x = torch.cat([first, second.flip(3)], 1).permute(0, 2, 3, 1).reshape(1, 4, 6).unbind(1)
    x = torch.stack(x, 2).unsqueeze(2)
    return torch.where(torch.arange(4) > 1, x, x.roll(1, 3)).repeat(1, 1, 1, 2)


@torch.no_grad()
def test_routing_where_and_copies():
    found, _, relevance = at_layer(moved, 48)
    places = propagation.matrix(moved, (6, 1, 4))
    torch.testing.assert_close(found[0], (places.T @ relevance).reshape(6, 4).sum(0))


UPSAMPLING = {
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(size=(3, 6), mode="bilinear", align_corners=False),
    "bicubic": nn.Upsample(size=(3, 6), mode="bicubic"),
}


@torch.no_grad()
@pytest.mark.parametrize("mode", UPSAMPLING)
def test_upsampling(mode):
    found, x, relevance = at_layer(UPSAMPLING[mode], UPSAMPLING[mode](torch.zeros(1, 6, 1, 4)).numel())
    places = propagation.matrix(UPSAMPLING[mode], (6, 1, 4))
    zeros = torch.zeros(len(places)).double()
    expected = propagation.epsilon(1e-9)(places, zeros, x.flatten(), relevance)
    torch.testing.assert_close(found[0], expected.reshape(6, 4).sum(0))


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("rule", "oracle"), [(Epsilon(), propagation.epsilon(1e-6)), (ZPlus(), propagation.z_plus)])
def test_transposed_convolution_and_its_batch_norm(groups, rule, oracle):
    torch.manual_seed(1)
    conv, norm = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=groups), nn.BatchNorm2d(4)
    both = settled(nn.Sequential(conv, norm))
    found, x, relevance = at_layer(both, 64, rules=Composite(convolution=rule))
    zero = both(torch.zeros(1, 6, 1, 4).double())
    weights = propagation.matrix(lambda v: both(v) - zero, (6, 1, 4))
    expected = oracle(weights, zero.flatten(), x.flatten(), relevance)
    torch.testing.assert_close(found[0], expected.reshape(6, 4).sum(0))


@torch.no_grad()
def test_matrices_of_constants_are_dense_layers():
    w = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)).double()
    forms = [
        lambda x: x.flatten(1) @ w,
        lambda x: (w.T @ x.flatten(1).T).T,
        lambda x: torch.addmm(w[:1], x.flatten(1), w),
    ]
    forms.append(lambda x: torch.einsum("nc,ck->nk", x.flatten(1), w))
    maps = []
    for form in forms:
        found, x, relevance = at_layer(form, 5, rules=Composite(dense=Epsilon()))
        bias = w[0] if form is forms[2] else torch.zeros(5).double()
        maps.append(propagation.epsilon(1e-6)(w.T, bias, x.flatten(), relevance).reshape(6, 4).sum(0))
        torch.testing.assert_close(found[0], maps[-1], rtol=1e-5, atol=1e-5)


def test_attention_of_torch_and_of_timm_are_the_same():
    torch.manual_seed(0)
    ours, theirs = settled(timm.layers.Attention(8, num_heads=2, qkv_bias=True)), nn.MultiheadAttention(8, 2).double()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.proj.weight.data, ours.proj.bias.data

    def network(attention):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(2), attention, nn.Flatten(), nn.Linear(32, 3))
        return net.double().eval()

    class Timm(nn.Module):
        def forward(self, x):
            return ours(x.transpose(1, 2))

    class Torch(nn.Module):
        def __init__(self, *, is_joint=True, mask=None):
            super().__init__()
            self.attention, self.is_joint, self.mask = theirs, is_joint, mask

        def forward(self, x):
            x = x.permute(2, 0, 1)
            other = x if self.is_joint else x + 0.0
            return self.attention(x, other, other, attn_mask=self.mask)[0].transpose(0, 1)

    x, nothing_hidden = images(2, (1, 4)), torch.zeros(4, 4, dtype=torch.bool)
    expected = LRP(network(Timm()))(x, target=1)
    for other in (Torch(), Torch(is_joint=False), Torch(mask=nothing_hidden), Torch(mask=nothing_hidden.double())):
        found = LRP(network(other))(x, target=1)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.heatmap, expected.heatmap, rtol=1e-5, atol=1e-8)


def test_masked_attention_gets_nothing_where_it_sees_nothing():
    hidden = torch.ones(4, 4, dtype=torch.bool).tril()

    def attention(mask, **options):
        def function(x):
            tokens = x.flatten(2).transpose(1, 2)
            return F.scaled_dot_product_attention(tokens, tokens, tokens, mask, **options)[:, 1]

        return function

    found = [at_layer(attention(m, **o), 6)[0] for m, o in ((hidden, {}), (None, {"is_causal": True}))]
    found.append(at_layer(attention(torch.zeros(4, 4).double().masked_fill(~hidden, -torch.inf)), 6)[0])
    for one in found:
        assert one.isfinite().all()
        assert (one[0, 2:] == 0).all()  # the second token sees the first two
        torch.testing.assert_close(one, found[0], rtol=1e-5, atol=1e-8)


# --- whole networks --------------------------------------------------------------------------------------------------


class HeldConstant(TorchFunctionMode):
    """AttnLRP with epsilon 0 as gradient x input: what gets no relevance is detached, products count half.

    An independent road to the same numbers, from the paper's appendix on gradient x input.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__.strip("_")
        if name == "layer_norm":
            x, shape, weight, bias, eps = (*args, *(kwargs[k] for k in ("weight", "bias", "eps") if k in kwargs))
            axes = tuple(range(-len(shape), 0))
            scale = (x.var(axes, unbiased=False, keepdim=True) + eps).rsqrt().detach()
            return (x - x.mean(axes, keepdim=True)) * scale * weight + bias
        if name in ("gelu", "silu", "hardswish", "sigmoid", "hardsigmoid", "relu6", "hardtanh"):
            return (
                args[0]
                * (func(*args, **{**kwargs, "inplace": False} if "inplace" in kwargs else kwargs) / args[0]).detach()
            )
        if name == "scaled_dot_product_attention":
            q, k, v = args[:3]
            with self:
                mask = kwargs.get("attn_mask")
                logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
                return (logits if mask is None else logits + mask).softmax(-1) @ v
        value = func(*args, **kwargs)
        both = [
            a for a in args[:2] if isinstance(a, torch.Tensor) and a.requires_grad and not isinstance(a, nn.Parameter)
        ]
        if name in ("mul", "matmul") and len(both) == 2:
            return 0.5 * value + 0.5 * value.detach()
        return value


def swin():
    options = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
    return settled(timm.models.SwinTransformer(num_classes=4, **options))


def convnext():
    return settled(timm.models.ConvNeXt(num_classes=4, depths=(1, 1, 1, 1), dims=(4, 6, 8, 10)))


def mobile(kind, act, gate):
    """Two blocks with squeeze and excitation."""
    blocks = decode_arch_def([["ds_r1_k3_s2_e1_c8_se0.25"], ["ir_r1_k3_s1_e2_c8_se0.25"]])
    se = partial(SqueezeExcite, gate_layer=gate)
    return settled(kind(blocks, num_classes=4, stem_size=8, num_features=12, act_layer=act, se_layer=se))


NETWORKS = {
    "vit": (vit, 8),
    "vit with a mean": (lambda: vit(class_token=False, global_pool="avg", init_values=0.5), 8),
    "swin": (swin, 16),
    "convnext": (convnext, 32),
    "mobilenet": (partial(mobile, timm.models.MobileNetV3, nn.Hardswish, "hard_sigmoid"), 16),
    "efficientnet": (partial(mobile, timm.models.EfficientNet, nn.SiLU, "sigmoid"), 16),
}


@sampled(one_in=3)
@pytest.mark.parametrize("name", NETWORKS)
def test_epsilon_is_gradient_times_input_with_parts_held_constant(name):
    make, side = NETWORKS[name]
    net, x = make().requires_grad_(False), images(1, (side, side)).requires_grad_()
    with HeldConstant():
        (gradient,) = torch.autograd.grad(net(x)[0, 1], x)
    why = LRP(net, rules=EXACT)(x.detach(), target=1)
    expected = (gradient * x).sum(1).detach()
    torch.testing.assert_close(why.heatmap, expected, rtol=1e-3, atol=3e-4 * float(expected.abs().max()))


def test_agrees_with_lxt(monkeypatch):
    """The whole network in lxt's functions, as benchmarks/relevance.py has it; its stabilisers get our sign."""
    functional, lxt_rules = (pytest.importorskip(f"lxt.explicit.{name}") for name in ("functional", "rules"))
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    written = importlib.import_module("relevance")
    for module in (functional, lxt_rules):
        monkeypatch.setattr(module, "_stabilize", written.signed_stabiliser)
    tiny, net, x = Epsilon(written.TINY), vit(), images(1, (8, 8)).requires_grad_()
    expected = written.relevance(written.lxt_vit(net, x), x, 2)
    found = LRP(net, rules=Composite(tiny, tiny, tiny, normalisation=tiny))(x.detach(), target=2).heatmap[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@sampled(one_in=3)
@pytest.mark.parametrize("rules", ["epsilon", pytest.param("gamma", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "constant"), [*((name, "nothing") for name in NETWORKS), ("vit", "attention"), ("swin", "both")]
)
def test_relevance_is_conserved_up_to_what_is_counted(name, rules, constant):
    make, side = NETWORKS[name]
    found = LRP(make(), rules=rules, constant=constant).conservation(images(1, (side, side)), target=1)
    assert found.error < 1e-3
    assert (found.softmax != 0) == (name in ("vit", "vit with a mean", "swin") and constant == "nothing")
    # Position embeddings, and the position bias of attention, whose weights are constants in CP-LRP.
    assert (found.constants != 0) == (name.startswith("vit") or (name == "swin" and constant == "nothing"))


def test_what_is_not_conserved_shows():
    net = vit()
    found = LRP(net, rules=Composite(dense=ZPlus())).conservation(images(1, (8, 8)), target=1)
    total = found.arrived + found.biases + found.constants + found.softmax
    assert found.error == pytest.approx(abs(total - found.started) / abs(found.started))
    with pytest.raises(ArgumentError, match="one image"):
        LRP(net).conservation(images(2, (8, 8)))


@torch.no_grad()
@pytest.mark.parametrize("gate", [torch.sigmoid, nn.Hardsigmoid(), lambda x: x.clamp(0.0, 1.0)])
def test_excitation_backprop_walks_past_gates(gate):
    """A gate is a weight that is not negative: what it lets through takes all."""
    net, x = Behind(lambda x: x[:, :3].relu() * gate(x[:, 3:]), 12).double().eval(), images(1, (1, 4))
    values = net.layer(x)[0]
    passed = (values[:3].relu() * gate(values[3:])).flatten()
    for variant, rule in (("paper", propagation.excitation), ("published-code", propagation.signed_excitation)):
        found = ExcitationBackprop(net, net.layer, variant=variant)(x, target=1).heatmap[0]
        expected = rule(net.head.weight, net.head.bias, passed, torch.eye(3).double()[1])
        torch.testing.assert_close(found[0], expected.reshape(3, 4).sum(0))
        assert found.sum() > 0.9


@pytest.mark.parametrize("name", ["mobilenet", "efficientnet"])
def test_excitation_backprop_of_networks_with_gates(name):
    make, side = NETWORKS[name]
    maps = ExcitationBackprop(make(), "input").classes(images(2, (side, side)), classes=[0, 1, 2, 3]).heatmap
    assert (maps >= 0).all()
    assert (maps.sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("make", "message"), [(vit, "layer_norm, in `blocks.0.norm1`"), (convnext, "layer_norm, in `stem.1`")]
)
def test_excitation_backprop_refuses_layer_norm(make, message):
    with pytest.raises(LayerError, match=message):
        ExcitationBackprop(make(), "input")(images(1, (32, 32) if make is convnext else (8, 8)))


def test_constant_attention_must_multiply_something():
    net = Behind(lambda x: x.softmax(1), 24).double().eval()
    with pytest.raises(LayerError, match="no rule says how relevance passes through"):
        LRP(net, net.layer, constant="attention")(images(1, (1, 4)))
    ending = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)).double().eval()
    with pytest.raises(LayerError, match="the logits are what only multiplies"):
        LRP(ending, constant="attention")(images(1, (4, 4)))


# --- settings --------------------------------------------------------------------------------------------------------


def test_gamma_by_names():
    net, x = vit(), images(1, (8, 8))
    found = LRP(net, rules="epsilon", gamma=(("blocks.0.attn.* head", 0.1), ("blocks.*", 0.5)))(x, target=1)
    by_hand = dict.fromkeys(("blocks.0.attn.qkv", "blocks.0.attn.proj", "head"), Gamma(0.1))
    layers = ("blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.1.attn.qkv", "blocks.1.attn.proj")
    by_hand |= dict.fromkeys((*layers, "blocks.1.mlp.fc1", "blocks.1.mlp.fc2"), Gamma(0.5))
    expected = LRP(net, rules=Composite(named=by_hand))(x, target=1)
    assert torch.equal(found.heatmap, expected.heatmap)
    assert not torch.allclose(found.heatmap, LRP(net, rules="epsilon")(x, target=1).heatmap)
    everywhere = LRP(net, gamma=0.3)(x, target=1).heatmap
    assert torch.equal(everywhere, LRP(net, rules=Composite(Gamma(0.3), Gamma(0.3), Gamma(0.3)))(x, target=1).heatmap)


class TwoConvolutions(nn.Module):
    def __init__(self, kind=nn.Conv2d):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = kind(3, 4, 3), kind(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


class Standardised(nn.Conv2d):
    """Weights from a tensor made on the way, a buffer, another parameter and those of the module, in this order."""

    def __init__(self, *size):
        super().__init__(*size)
        self.gain = nn.Parameter(torch.rand(size[1], 1, 1, 1) + 0.5)
        self.register_buffer("shrink", torch.full((), 0.5))

    def computed(self):
        deviation = torch.maximum(self.weight.std((1, 2, 3), keepdim=True), torch.tensor(1e-3))
        return torch.full((1, 1), 0.9).squeeze(0) * (self.shrink * (self.gain * (self.weight / deviation)))

    def forward(self, x):
        return F.conv2d(x, self.computed(), self.bias)


class Doubled(nn.Module):
    def forward(self, weight):
        return torch.tensor(2.0) * weight


def of_both(change):
    net = TwoConvolutions()
    for conv in (net.a, net.b):
        change(conv)
    return net


COMPUTED = {
    "weight norm": lambda: of_both(nn.utils.parametrizations.weight_norm),
    "own": lambda: of_both(lambda conv: nn.utils.parametrize.register_parametrization(conv, "weight", Doubled())),
    "pruned": lambda: of_both(lambda conv: prune.random_unstructured(conv, "weight", 0.3)),
    "in forward": lambda: TwoConvolutions(Standardised),
}


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_have_the_rules_of_their_module(name, is_frozen):
    net, plain, x = COMPUTED[name]().double().eval(), TwoConvolutions().double().eval(), images(1, (8, 8))
    with torch.no_grad():
        net(x)  # a hook computes the pruned ones
    for layer in "ab":
        its = getattr(net, layer)
        weight = its.computed() if name == "in forward" else its.weight
        getattr(plain, layer).load_state_dict({"weight": weight.detach(), "bias": its.bias})
    plain.fc = net.fc
    net.requires_grad_(not is_frozen)
    for options in (
        {"gamma": 0.5},
        {"gamma": (("b", 5.0), ("*", 0.0))},
        {"rules": Composite(named={"a": ZPlus(), "b": Gamma(5.0)})},
    ):
        found, expected = (LRP(one, **options)(x, target=1).heatmap for one in (net, plain))
        torch.testing.assert_close(found, expected)
    assert "a" in layer_groups(net)["early convolutions"].split()


class Functions(nn.Module):
    """`TwoConvolutions` without modules; `k2` may be none of the model's own."""

    def __init__(self, plain, *, is_held=True):
        super().__init__()
        self.k1, self.fc, self.unused = plain.a.weight, plain.fc, nn.Parameter(torch.zeros(2, 2))
        self.b1, self.b2 = plain.a.bias, plain.b.bias
        self.k2 = plain.b.weight if is_held else [plain.b.weight.detach()]

    def forward(self, x):
        k2 = self.k2[0] if isinstance(self.k2, list) else self.k2
        return self.fc(F.relu(F.conv2d(F.relu(F.conv2d(x, self.k1, self.b1)), k2, self.b2)).mean((2, 3)))


def test_weights_without_a_module():
    plain, x = TwoConvolutions().double().eval(), images(1, (8, 8))
    expected = LRP(plain, gamma=0.5)(x, target=1).heatmap
    for is_held in (True, False):
        net = Functions(plain, is_held=is_held).eval()
        torch.testing.assert_close(LRP(net, gamma=0.5)(x, target=1).heatmap, expected)
    net = Functions(plain).eval()
    expected = LRP(plain, gamma=(("b", 5.0), ("*", 0.0)))(x, target=1).heatmap
    torch.testing.assert_close(LRP(net, gamma=(("k2", 5.0), ("*", 0.0)))(x, target=1).heatmap, expected)
    by_hand = Composite(named={"k1": Epsilon(), "k2": Gamma(5.0), "fc": Epsilon()})
    torch.testing.assert_close(LRP(net, rules=by_hand)(x, target=1).heatmap, expected)


def test_a_rule_by_name_that_no_layer_got_is_refused():
    plain, x = TwoConvolutions().double().eval(), images(1, (8, 8))
    with pytest.raises(LayerError, match=r"the rule of 'unused'.*not used as weights"):
        LRP(Functions(plain), gamma=(("unused", 0.1),))(x)
    net = Functions(plain, is_held=False)
    net.idle = nn.Linear(2, 2)
    for options in ({"gamma": (("k1 idle", 0.1),)}, {"rules": Composite(named={"idle": ZPlus()})}):
        with pytest.raises(LayerError, match=r"the rule of 'idle'.*none of the model's parameters"):
            LRP(net, **options)(x)
    # Where nothing is in doubt, names of layers that do not run, or run before the explained one, do no harm.
    net = Functions(plain)
    net.idle = nn.Linear(2, 2)
    assert LRP(net, gamma=(("idle", 0.1), ("*", 0.0)))(x).heatmap.equal(LRP(net, gamma=0.0)(x).heatmap)
    assert LRP(plain, "b", gamma=(("a", 0.1), ("*", 0.0)))(x).heatmap.equal(LRP(plain, "b", gamma=0.0)(x).heatmap)


def test_settings_are_kept_and_may_be_written_as_text():
    text = "lrp(rules='epsilon', gamma=(('blocks.*', 0.5),), constant='both')"
    from contrex.explain.named import build_explainer, check_explainer

    check_explainer(text)
    why = build_explainer(vit(), text)(images(1, (8, 8)))
    assert why.options["gamma"] == (("blocks.*", 0.5),)
    assert why.options["constant"] == "both"
    assert build_explainer(vit(), why.explainer)(images(1, (8, 8))).heatmap.equal(why.heatmap)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"constant": "gate"}, UnknownNameError, "`constant` must be one of"),
        ({"gamma": (("blocks.7.*", 0.1),)}, UnknownNameError, "a layer in `gamma`"),
        ({"gamma": -0.1}, ArgumentError, "`gamma` must not be negative"),
    ],
)
def test_wrong_settings(options, kind, message):
    with pytest.raises(kind, match=message):
        LRP(vit(), **options)


@sampled(one_in=2)
@pytest.mark.parametrize(
    "name", ["vit", *(pytest.param(n, marks=pytest.mark.slow) for n in ("convnext", "mobilenet", "swin"))]
)
@pytest.mark.parametrize(("rules", "check"), crossed(["epsilon", "gamma"], CHECKS, one_in=8))
def test_contract(rules, check, name):
    make, side = NETWORKS[name]
    CHECKS[check](lambda model: contrex.LRP(model, rules=rules), make(), images(2, (side, side)))
