"""Attention rollouts against their equations, on attention read by other means."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError
from contrex.explain.attention.attention_rollout import AttentionRollout
from contrex.explain.attention.gradient_attention_rollout import GradientAttentionRollout
from contrex.explain.contract import CHECKS
from explain.networks import images, network
from oracles import cams, propagation
from sampling import crossed, sampled

timm = pytest.importorskip("timm")
METHODS = {"plain": AttentionRollout, "gradient": GradientAttentionRollout}
SIZE = (32, 32)


def timm_network(name="vit_tiny_patch16_224", seed=0, **options):
    torch.manual_seed(seed)
    options = {"img_size": 32, "num_classes": 4, "depth": 3, "embed_dim": 12, "num_heads": 3, "patch_size": 8} | options
    net = timm.create_model(name, **options).double().eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return net


def torchvision_network():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(32, 8, num_layers=3, num_heads=3, hidden_dim=12, mlp_dim=24, num_classes=4).double().eval()
    nn.init.normal_(net.heads.head.weight)
    return net


class Written(nn.Module):
    """Attention without a library: a softmax between two products; no token in front, the average is read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.qkv = nn.ModuleList(nn.Linear(12, 36) for _ in range(2))
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 4)
        self.weights = []

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        self.weights.clear()
        for qkv in self.qkv:
            q, k, v = (t.unflatten(2, (3, 4)).transpose(1, 2) for t in qkv(x).chunk(3, -1))
            weights = F.dropout((q @ k.mT / 2).softmax(dim=-1), 0.1, self.training)
            self.weights.append(weights)
            x = x + (weights @ v).transpose(1, 2).flatten(2)
        return self.fc(self.norm(x).mean(1))


def attention_of(net, x):
    """Logits of one image and the attention of each layer [h,T,T] in the graph, by the library's own unfused road."""
    weights = []
    if isinstance(net, Written):
        return net(x), net.weights
    if not hasattr(net, "blocks"):
        return _torchvision_attention(net, x)
    handles = [b.attn.attn_drop.register_forward_hook(lambda m, i, output: weights.append(output)) for b in net.blocks]
    for block in net.blocks:
        block.attn.fused_attn = False
    try:
        return net(x), weights
    finally:
        for block, handle in zip(net.blocks, handles, strict=True):
            block.attn.fused_attn = True
            handle.remove()


def _torchvision_attention(net, x):
    """The encoder layer by layer, with attention from the projections."""
    weights = []
    tokens = net._process_input(x)
    tokens = torch.cat([net.class_token.expand(len(x), -1, -1), tokens], 1) + net.encoder.pos_embedding
    for layer in net.encoder.layers:
        mha, normed = layer.self_attention, layer.ln_1(tokens)
        q, k, v = (
            t.unflatten(2, (3, 4)).transpose(1, 2)
            for t in F.linear(normed, mha.in_proj_weight, mha.in_proj_bias).chunk(3, 2)
        )
        weights.append((q @ k.mT / 2).softmax(-1))
        tokens = tokens + mha.out_proj((weights[-1] @ v).transpose(1, 2).flatten(2))
        tokens = tokens + layer.mlp(layer.ln_2(tokens))
    return net.heads(net.encoder.ln(tokens)[:, 0]), weights


NETWORKS = {
    "timm": (timm_network, 1, [0]),
    "distilled": (lambda: timm_network("deit_tiny_distilled_patch16_224"), 2, [0, 1]),
    "registers": (lambda: timm_network(reg_tokens=4), 5, [0]),
    "average": (lambda: timm_network(class_token=False, global_pool="avg"), 0, list(range(16))),
    "torchvision": (torchvision_network, 1, [0]),
    "written out": (lambda: Written().double().eval(), 0, list(range(16))),
}
FEW = ("registers", "torchvision", "written out")
"""One of each kind: a library's attention with more tokens in front, `nn.MultiheadAttention`, and none."""
every_network = pytest.mark.parametrize("name", NETWORKS)
every_method = pytest.mark.parametrize("method", METHODS)


@sampled(one_in=2)
@every_network
def test_attention_rollout(name):
    make, prefix, read = NETWORKS[name]
    net, x = make(), images(2, SIZE)
    why = AttentionRollout(net)(x)
    for index in range(2):
        logits, weights = attention_of(net, x[index : index + 1])
        expected = propagation.rollout([w[0].detach() for w in weights], read)
        torch.testing.assert_close(why.heatmap[index].flatten(), expected[prefix:])
        torch.testing.assert_close(why.logits[index], logits[0].detach())
        assert expected.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", crossed(NETWORKS, one_in=2))
def test_gradient_attention_rollout(name):
    make, prefix, read = NETWORKS[name]
    net, x, maps = make(), images(2, SIZE), []
    for index in range(2):
        logits, weights = attention_of(net, x[index : index + 1])
        maps.append([])
        for k in range(4):
            gradients = torch.autograd.grad(logits[0, k], weights, retain_graph=True)
            rollout = propagation.gradient_rollout([w[0].detach() for w in weights], [g[0] for g in gradients], read)
            maps[-1].append(rollout[prefix:].unflatten(0, (4, 4)))
            assert maps[-1][-1].abs().max() > 0
    cams.assert_contrasted(GradientAttentionRollout(net), x, [1, 3], maps, rtol=1e-7, atol=1e-7)


def test_log_probability_is_one_backward_pass_of_the_weighted_contrast():
    """It is not the difference of the classes' maps: the ReLU comes after the contrast."""
    net, x = timm_network(), images(1, SIZE)
    logits, weights = attention_of(net, x)
    gradients = torch.autograd.grad(logits.log_softmax(1)[0, 1], weights)
    expected = propagation.gradient_rollout([w[0].detach() for w in weights], [g[0] for g in gradients], [0])
    explainer = GradientAttentionRollout(net)
    found = explainer(x, target=1, score="log_probability").heatmap.flatten()
    torch.testing.assert_close(found, expected[1:])
    difference = explainer(x, target=1, contrast="weighted").heatmap.flatten()
    assert (found >= 0).all()
    assert (difference < 0).any()


def test_rectangular_images():
    net, x = timm_network(img_size=(32, 48)), images(1, (32, 48))
    assert AttentionRollout(net)(x).heatmap.shape == (1, 4, 6)
    upright = timm_network(img_size=(48, 32))
    assert GradientAttentionRollout(upright)(images(1, (48, 32))).heatmap.shape == (1, 6, 4)


@every_method
def test_nothing_is_set_in_the_model(method):
    """Fused attention stays fused, for other threads also during the call."""
    net, x = timm_network(), images(1, SIZE)
    seen = []
    handle = net.blocks[1].register_forward_hook(lambda *_: seen.append([b.attn.fused_attn for b in net.blocks]))
    before = [b.attn.fused_attn for b in net.blocks]
    METHODS[method](net)(x)
    handle.remove()
    assert seen == [before] * 2  # the pass that is explained, and one that tells which tokens are the grid


@every_method
def test_masks_and_biases_are_in_the_weights(method):
    net = timm_network("beit_base_patch16_224", num_heads=3)
    with torch.no_grad():
        for block in net.blocks:
            block.attn.relative_position_bias_table.normal_()
    x = images(2, SIZE)
    why = METHODS[method](net)(x)
    torch.testing.assert_close(why.logits, net(x).detach())
    for block in net.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(METHODS[method](net)(x).heatmap, why.heatmap)


@sampled(one_in=3)
@every_method
@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (lambda: network("mlp"), SIZE, "no attention was seen"),
        (
            lambda: timm.create_model(
                "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), embed_dim=12, num_heads=(3, 3)
            ).double(),
            (56, 56),
            r"it attends within windows: weights \[4, 3, 49, 49\] for 1 image",
        ),
        (
            lambda: timm.create_model("pvt_v2_b0", depths=(1, 1, 1, 1)).double(),
            (64, 64),
            "are not from all tokens to all tokens",
        ),
        (
            lambda: timm.create_model("pit_ti_224", img_size=64, depth=(1, 1, 1)).double(),
            (64, 64),
            "number of tokens changes from layer to layer",
        ),
        (
            lambda: timm.create_model("xcit_nano_12_p16_224", img_size=64, depth=1).double(),
            (64, 64),
            "are not from all tokens to all tokens",
        ),
    ],
)
def test_models_without_such_attention_are_named(method, make, size, message):
    torch.manual_seed(0)
    with pytest.raises(LayerError, match=message):
        METHODS[method](make().eval())(images(1, size))


@every_method
def test_weights_that_are_changed_before_they_meet_the_values_are_not_left_out(method):
    """ConViT's first blocks gate theirs: a map of the last ones alone would look like one of all."""
    torch.manual_seed(0)
    net = timm.create_model("convit_tiny", img_size=32, patch_size=8, num_classes=4, depth=3, local_up_to_layer=2)
    with pytest.raises(LayerError, match="4 of its softmaxes over all tokens are changed"):
        METHODS[method](net.double().eval())(images(1, SIZE))


class Branched(nn.Module):
    """One network twice: for the image and its mirror, for a pair of images, or one of the two without gradients."""

    def __init__(self, how):
        super().__init__()
        self.how, self.net = how, timm_network(depth=1, class_token=False, global_pool="avg")

    def forward(self, x, other=None):
        if self.how == "frozen":
            with torch.no_grad():
                first = self.net(x)
            return first + self.net(x)
        return self.net(x) + self.net(x.flip(-1) if other is None else other)


class OfAnother(Branched):
    """Attention that sees the other image alone, or asks it about this one."""

    def forward(self, x, other):
        embed = nn.Sequential(self.net.patch_embed, self.net.blocks[0].attn.proj)
        query = embed(other)[:, None]
        key = query if self.how == "self" else embed(x)[:, None]
        return self.net.head(F.scaled_dot_product_attention(query, key, key)[:, 0].mean(1)) * x.mean()


def differential():
    if not hasattr(timm.layers, "DiffAttention"):
        pytest.skip("this timm has no differential attention")
    return timm_network(attn_layer="diff", num_heads=2)


OTHER = images(2, SIZE)[1:]
NO_CHAINS = {
    "mirrored": (lambda: Branched("mirrored"), None, 2),
    "pair": (lambda: Branched("pair"), OTHER, 2),
    "frozen": (lambda: Branched("frozen"), None, 2),
    "parallel": (lambda: timm_network(block_fn=timm.models.vision_transformer.ParallelThingsBlock), None, 2),
    "of another": (lambda: OfAnother("self"), OTHER, 1),
    "across": (lambda: OfAnother("across"), OTHER, 1),
    "differential": (differential, None, 2),
}


@pytest.mark.parametrize("name", NO_CHAINS)
@pytest.mark.parametrize("method", [*METHODS.values(), contrex.LeGrad])
def test_attention_that_is_no_chain_is_refused(method, name):
    """Rolled out one after the other, a map of the mirrored image would be mixed into that of the image."""
    make, other, number = NO_CHAINS[name]
    with pytest.raises(LayerError, match=f"are no chain, as number {number} does not go on with"):
        method(make().double().eval())(images(1, SIZE), inputs=other)


def test_blocks_that_run_without_gradients_are_a_chain():
    """Frozen ones, of whose attention nothing is recorded."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = timm_network()

        def forward(self, x):
            with torch.no_grad():
                x = self.net._pos_embed(self.net.patch_embed(x))
                x = self.net.blocks[1](self.net.blocks[0](x))
            return self.net.forward_head(self.net.norm(self.net.blocks[2](x)))

    net, x = Frozen().eval(), images(2, SIZE)
    found = AttentionRollout(net, reshape=lambda t: t[:, 1:].unflatten(1, (4, 4)).movedim(-1, 1))(x)
    torch.testing.assert_close(found.heatmap, AttentionRollout(net.net)(x).heatmap)


@every_method
def test_a_classifier_of_zeros_is_named(method):
    net = timm_network()
    nn.init.zeros_(net.head.weight)
    with pytest.raises(LayerError, match="still all zeros"):
        METHODS[method](net)(images(1, SIZE))


def test_tokens_in_front_of_the_grid_are_counted():
    """However many there are: a class token and two registers, or eight, which together look like a 5 x 5 grid."""
    for registers in (2, 8):
        net, x = timm_network(reg_tokens=registers), images(1, SIZE)
        found = AttentionRollout(net)(x)
        cells = AttentionRollout(net, reshape=lambda t, n=registers: t[:, 1 + n :].unflatten(1, (4, 4)).movedim(-1, 1))
        torch.testing.assert_close(found.heatmap, cells(x).heatmap)


def test_tokens_that_are_no_grid_need_reshape():
    """Two attention layers over pixels in an order that no rule follows."""

    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention = nn.Conv2d(3, 8, 4, stride=4), nn.MultiheadAttention(8, 2, batch_first=True)
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            tokens = self.embed(x).flatten(2).mT[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))]
            return self.fc(self.attention(tokens, tokens, tokens)[0].mean(1))

    net, x = Shuffled().double().eval(), images(1, SIZE)
    with pytest.raises(LayerError, match=r"16 tokens are no grid.*pass `reshape=`"):
        AttentionRollout(net)(x)
    found = AttentionRollout(net, reshape=lambda tokens: tokens.unflatten(1, (4, 4)).movedim(-1, 1))(x)
    assert found.heatmap.shape == (1, 4, 4)


def test_rollout_has_no_class_and_no_contrast():
    net, x = timm_network(), images(2, SIZE)
    explainer = AttentionRollout(net)
    torch.testing.assert_close(explainer(x, target=0).heatmap, explainer(x, target=3).heatmap)
    with pytest.raises(ArgumentError, match="`contrast` means nothing to AttentionRollout"):
        explainer(x, contrast="mean")


def test_rollout_without_gradients_keeps_no_graph():
    net, x = timm_network(), images(2, SIZE)
    for method, keeps in ((AttentionRollout, False), (GradientAttentionRollout, True)):
        run = method(net)._forward(x, differentiable=False)
        assert [weights.requires_grad for weights in run.attention] == [keeps] * 3


@every_method
def test_differentiable_maps_have_the_right_gradient(method):
    """Against finite differences, through attention and its gradient."""
    net, x = timm_network(depth=2), images(1, SIZE)
    explainer = METHODS[method](net)
    parameter = net.blocks[0].attn.qkv.weight

    def loss(differentiable):
        return (explainer(x, target=1, differentiable=differentiable).heatmap ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(True), parameter)
    index = int(gradient.abs().argmax())
    flat = parameter.data.view(-1)
    flat[index] += 1e-6
    up = loss(False)
    flat[index] -= 2e-6
    down = loss(False)
    flat[index] += 1e-6
    assert gradient.flatten()[index].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-4)


@pytest.mark.parametrize("layer", ["patch_embed", None])
def test_a_loss_on_a_map_goes_back_through_fused_attention(layer):
    """Behind the explained layer, whose kernels torch can differentiate once only; and they are back afterwards."""
    net, x = timm_network(depth=2), images(2, SIZE)
    assert net.blocks[1].attn.fused_attn
    explainer = contrex.HiResCAM(net, layer) if layer else contrex.Gradient(net)
    parameter, allowed = net.blocks[1].attn.qkv.weight, torch.backends.cuda.flash_sdp_enabled()

    def loss():
        return explainer(x, target=1, differentiable=True).heatmap.square().sum()

    (found,) = torch.autograd.grad(loss(), parameter)
    assert torch.backends.cuda.flash_sdp_enabled() == allowed
    for block in net.blocks:
        block.attn.fused_attn = False
    (expected,) = torch.autograd.grad(loss(), parameter)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
@pytest.mark.parametrize(("method", "check"), crossed(METHODS, CHECKS, one_in=8))
def test_contract(method, name, check):
    if name == "written out" and check == "frees_its_memory":
        pytest.skip("the network itself keeps its weights")
    CHECKS[check](METHODS[method], NETWORKS[name][0](), images(3, SIZE))
