"""LeGrad against its equation, on tokens and attention read by other means, and beside torch-cam."""

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, LayerError
from contrex.explain import LeGrad
from explain.attention.test_attention import (
    NETWORKS,
    Written,
    attention_of,
    timm_network,
    torchvision_network,
)
from explain.networks import images, network
from oracles import cams
from oracles.legrad import legrad

SIZE = (32, 32)


def blocks_of(net):
    return net.blocks if hasattr(net, "blocks") else net.encoder.layers


def classified(net, tokens):
    """The logits where every token is the mean of `tokens` [1,T,D]."""
    alike = tokens.mean(1, keepdim=True).expand(-1, tokens.shape[1], -1)
    if hasattr(net, "forward_head"):
        return net.forward_head(net.norm(alike))
    return net.heads(net.encoder.ln(alike)[:, 0])


def expected_maps(net, image, num_prefix, some=slice(None)):
    """The map of each class for one image [1,3,H,W]."""
    tokens = []
    if hasattr(net, "blocks"):
        handles = [one.register_forward_hook(lambda m, i, output: tokens.append(output)) for one in net.blocks]
        _, attention = attention_of(net, image)
        [handle.remove() for handle in handles]
    else:
        tokens, attention = torchvision_tokens(net, image)
    logits = [classified(net, one)[0] for one in tokens][some]
    found = [legrad([one[k] for one in logits], attention[some], num_prefix) for k in range(4)]
    return [one.reshape(4, 4) for one in found]


def torchvision_tokens(net, image):
    tokens, attention = [net._process_input(image)], []
    tokens[0] = torch.cat([net.class_token, tokens[0]], 1) + net.encoder.pos_embedding
    for layer in net.encoder.layers:
        mha, normed = layer.self_attention, layer.ln_1(tokens[-1])
        joined = nn.functional.linear(normed, mha.in_proj_weight, mha.in_proj_bias).chunk(3, 2)
        q, k, v = (t.unflatten(2, (3, 4)).transpose(1, 2) for t in joined)
        attention.append((q @ k.mT / 2).softmax(-1))
        half = tokens[-1] + mha.out_proj((attention[-1] @ v).transpose(1, 2).flatten(2))
        tokens.append(half + layer.mlp(layer.ln_2(half)))
    return tokens[1:], attention


@pytest.mark.parametrize(
    "name", ["torchvision", *(pytest.param(one, marks=pytest.mark.slow) for one in ("timm", "registers")), "distilled",
             pytest.param("average", marks=pytest.mark.slow)],
)  # fmt: skip
def test_legrad(name):
    make, num_prefix, _ = NETWORKS[name]
    net, x, target = make(), images(1, SIZE), [3]
    maps = [expected_maps(net, image[None], num_prefix) for image in x]
    cams.assert_contrasted(LeGrad(net), x, target, maps)


def test_the_last_blocks_alone():
    net, x = timm_network(), images(1, SIZE)
    maps = expected_maps(net, x, 1, slice(-2, None))
    found = LeGrad(net, num_blocks=2)(x, target=1).heatmap[0]
    torch.testing.assert_close(found, maps[1])
    torch.testing.assert_close(LeGrad(net, num_blocks=9)(x).heatmap, LeGrad(net)(x).heatmap)
    assert not torch.allclose(found, LeGrad(net)(x, target=1).heatmap[0])


class TokensFirst(nn.Module):
    """Blocks of tokens `[T,N,D]`, as CLIP's first code has them, that give a tuple."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.norm, self.mlp = nn.MultiheadAttention(12, 3), nn.LayerNorm(12), nn.Linear(12, 12)

        def forward(self, x):
            normed = self.norm(x)
            x = x + self.attention(normed, normed, normed, need_weights=False)[0]
            return (x + self.mlp(x).tanh(),)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.fc = nn.Conv2d(3, 12, 8, stride=8), nn.Linear(12, 4)
        self.blocks = nn.ModuleList(self.Block() for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).permute(2, 0, 1)
        for block in self.blocks:
            (x,) = block(x)
        return self.fc(x.mean(0))


def test_tokens_may_come_before_images():
    """Also where there are as many images as tokens, which the shape cannot tell apart."""
    x = images(16, SIZE)
    for net in (TokensFirst().double().eval(), timm_network(class_token=False, global_pool="avg", depth=2)):
        alone = LeGrad(net)(x[5:6], target=1).heatmap[0]
        assert alone.abs().max() > 0
        torch.testing.assert_close(LeGrad(net)(x, target=1).heatmap[5], alone)


def test_what_it_cannot_explain():
    with pytest.raises(LayerError, match="LeGrad cannot explain Net: no attention was seen in it"):
        LeGrad(network("mlp"))(images())
    with pytest.raises(LayerError, match="its 2 attentions are not in blocks that go on with each other's tokens"):
        LeGrad(Written().double().eval())(images(2, SIZE))
    with pytest.raises(ArgumentError, match="`num_blocks` must be at least 1, the last one, or None for all; got 0"):
        LeGrad(timm_network(), num_blocks=0)


class Mixed(nn.Module):
    """What follows the blocks needs the image once more, and all images of the batch."""

    def __init__(self):
        super().__init__()
        self.net = timm_network()

    def forward(self, x):
        tokens = self.net.forward_features(x)
        return self.net.forward_head(tokens * x.mean((1, 2, 3))[: len(tokens), None, None])


def test_a_network_that_broadcasts_nothing_runs_for_every_image():
    net, x = Mixed(), images(2, SIZE)
    found = LeGrad(net)(x, target=1).heatmap
    alone = torch.cat([LeGrad(net)(image[None], target=1).heatmap for image in x])
    torch.testing.assert_close(found, alone)


def test_the_tower_of_a_zero_shot_classifier():
    from contrex.models.zero_shot import ZeroShot

    tower = timm_network(num_classes=6)
    net = ZeroShot(tower, torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), torch.tensor(2.0)).double()
    x = images(2, SIZE)
    why = contrex.LeGrad(net.eval())(x, target=0, contrast="nearest")
    maps = LeGrad(net).classes(x, classes=range(3)).heatmap
    foils = why.foils
    assert foils is not None
    assert foils.shape == (2, 2)
    assert why.heatmap.shape == (2, 4, 4)
    pair = LeGrad(net)(x, target=0, contrast=1).heatmap
    torch.testing.assert_close(pair, maps[:, 0] - maps[:, 1])


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_torch_cam():
    methods = pytest.importorskip("torchcam.methods")
    if not hasattr(methods, "LeGrad"):
        pytest.skip("this version of torch-cam has no LeGrad")
    net, x = torchvision_network().float(), images(2, SIZE).float()
    with methods.LeGrad(net, list(net.encoder.layers)) as cam:
        (expected,) = cam([2, 2], net(x), normalized=False)
    torch.testing.assert_close(LeGrad(net)(x, target=2).heatmap, expected.detach(), rtol=1e-5, atol=1e-6)
