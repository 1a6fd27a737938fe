"""FullGrad's map sums to the score, or is refused: added constants are biases, and what hides one is found out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contrex
from contrex.errors import LayerError
from contrex.models import build_network
from explain.networks import images
from sampling import sampled


class Adding(nn.Module):
    """A convolution, `add(x, b)` with a parameter b [8,1,1], a ReLU, and `read(features, c)` with a parameter c [8]."""

    def __init__(self, add, read=None):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.b, self.c = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8))
        self.add, self.read = add, read or (lambda features, c: features)

    def forward(self, x):
        features = self.add(self.conv(x), self.b).relu().mean((2, 3))
        return self.fc(self.read(features, self.c))


def network(*functions):
    torch.manual_seed(3)
    return Adding(*functions).double().eval()


def _in_a_slice(x, b):
    x[:, 2:4] += b[2:4]
    return x


CONSTANTS = {
    "+": lambda x, b: x + b,
    "+ from the left": lambda x, b: b + x,
    "+=": lambda x, b: x.add_(b),
    "+= on a slice": _in_a_slice,
    "-": lambda x, b: x - b,
    "1 -": lambda x, b: 1 - x,
    "b -": lambda x, b: b - x,
    "a number": lambda x, b: x + 0.5,
    "alpha": lambda x, b: torch.add(x, b, alpha=3),
    "alpha of the data": lambda x, b: torch.sub(b, x, alpha=2),
    "what is made of parameters": lambda x, b: x * b.abs()[None] + (2 * b).expand_as(x),
    "concatenation": lambda x, b: torch.cat([x[:, :4], b[4:].expand(len(x), 4, *x.shape[2:])], 1),
    "clamp": lambda x, b: x.clamp(-0.1, 0.2),
    "threshold": lambda x, b: F.threshold(x, 0.1, 0.3),
    "hard swish written out": lambda x, b: F.relu6(x + 3) / 6,
}


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)])
def test_a_classifier_that_is_a_convolution_behind_pooling_is_a_layer_on_vectors(pool):
    torch.manual_seed(3)
    parts = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(8, 4, 1), nn.Flatten()
    net, x = nn.Sequential(*parts).double().eval(), images(2, (6, 5))
    why = contrex.FullGrad(net)(x, target=1)
    torch.testing.assert_close(why.heatmap.sum((1, 2)), why.logits[:, 1])


@sampled(one_in=3)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_constants_are_biases(constant):
    net, x = network(CONSTANTS[constant]), images(2, (6, 5))
    why = contrex.FullGrad(net)(x, target=1)
    torch.testing.assert_close(why.heatmap.sum((1, 2)), why.logits[:, 1])
    graph = contrex.FullGrad(net)(x, target=1, differentiable=True)
    torch.testing.assert_close(graph.heatmap.detach(), why.heatmap)
    assert torch.autograd.grad(graph.heatmap.square().sum(), net.conv.weight)[0].abs().max() > 0


def test_a_bias_that_is_added_is_one_of_the_convolution():
    """The same place, not the same sum alone."""
    added, own = network(lambda x, b: x + b), network(lambda x, b: x)
    own.conv.bias.data += own.b.data.flatten()
    x = images(2, (6, 5))
    torch.testing.assert_close(contrex.FullGrad(added)(x, target=1).heatmap, contrex.FullGrad(own)(x, target=1).heatmap)


def _addmm(x, c):
    return torch.addmm(c, x, torch.eye(8, dtype=x.dtype))


def _baddbmm(x, c):
    return torch.baddbmm(c.expand(len(x), 1, 8), x[:, None], torch.eye(8, dtype=x.dtype).expand(len(x), 8, 8))[:, 0]


@pytest.mark.parametrize(
    "read", [_addmm, _baddbmm, lambda x, c: F.linear(x, c.diag(), c), lambda x, c: x @ c.diag() - c]
)
def test_constants_on_vectors(read):
    net = network(lambda x, b: x, read)
    why = contrex.FullGrad(net)(images(), contrast="weighted", score="probability")
    rows = contrex.Gradient(net)(images(), contrast="weighted", score="probability")
    assert why.heatmap.shape == rows.heatmap.shape  # the sum was compared with what is explained of the logits


class _Shifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, b):
        return x + b

    @staticmethod
    def backward(ctx, grad):
        return grad, None


HIDDEN = {
    "own function": _Shifted.apply,
    "padding with a number": lambda x, b: F.pad(x, (1, 1, 1, 1), value=0.7),
    "masked fill": lambda x, b: x.masked_fill(x > 0.1, 0.5),
    "a slice that is overwritten": lambda x, b: torch.index_fill(x, 1, torch.tensor([1, 2]), 0.5),
    "a square": lambda x, b: x**2,
    "an exponential": lambda x, b: x.exp(),
    "a norm": lambda x, b: x / x.norm(),
    "a constant over data": lambda x, b: b / (x.abs() + 1),
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_hides_a_bias_is_refused(hidden):
    net, x = network(HIDDEN[hidden]), images(2, (6, 5))
    for options in ({}, {"contrast": "weighted"}, {"score": "probability"}, {"differentiable": True}):
        with pytest.raises(LayerError, match=r"FullGrad divides the score among biases.*IntegratedGradients"):
            contrex.FullGrad(net)(x, **options)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("part", ["network", "convolution"])
@pytest.mark.parametrize(
    "how", [torch.jit.script, lambda module: torch.jit.trace(module, torch.randn(1, 3, 6, 5).double())]
)
def test_scripted_and_traced_parts_are_refused(how, part):
    chain = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    net = nn.Sequential(*chain).double().eval()
    if part == "network":
        net = how(net)
    else:
        net[0] = how(net[0])
    with pytest.raises(LayerError, match=r"hidden from it: the map of image 0 sums to .*, the score is"):
        contrex.FullGrad(net)(images(2, (6, 5)))


def test_cancellation_is_no_hidden_bias():
    """A contrast of nearly equal classes: the parts are large, the score is tiny."""
    net, x = network(lambda x, b: x + b).float(), images(2, (6, 5)).float()
    net.fc.weight.data[2] = net.fc.weight.data[1] * (1 + 1e-6)
    net.fc.bias.data[2] = net.fc.bias.data[1]
    assert contrex.FullGrad(net)(x, target=1, contrast=2).heatmap.isfinite().all()


REAL = [
    *("torchvision:resnet18", "torchvision:densenet121", "torchvision:mobilenet_v2", "torchvision:vgg11_bn"),
    *("torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5", "timm:mobilenetv1_100", "torchvision:resnet152"),
    *("timm:repvgg_a0", "timm:darknet53", "timm:dla34", "timm:cspresnet50", "timm:regnetx_002", "timm:vovnet39a"),
]
GATED = ["torchvision:mobilenet_v3_small", "torchvision:efficientnet_b0", "timm:hardcorenas_a", "timm:ese_vovnet19b_dw"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", REAL)
def test_real_networks_are_complete_to_rounding(architecture):
    torch.manual_seed(0)
    net, x = build_network(architecture, {}, num_classes=10).eval(), torch.randn(2, 3, 64, 96)
    for contrast in (None, "weighted", 3):
        assert contrex.FullGrad(net)(x, target=1, contrast=contrast).heatmap.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrex.FullGrad(net)(x, target=1).heatmap.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", GATED)
def test_real_networks_with_gates_are_refused(architecture):
    net = build_network(architecture, {}, num_classes=10).eval()
    with pytest.raises(LayerError, match="mul of activations"):
        contrex.FullGrad(net)(torch.randn(1, 3, 64, 64))
