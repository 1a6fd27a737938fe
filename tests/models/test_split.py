from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, LayerError
from contrex.explain.forward.head import forward_features
from contrex.models import ProjectionHead, build_network, classifier_head
from sampling import sampled

FOUND = {
    "contrex:convnet": ("fc", 128, 32),
    "torchvision:resnet18": ("fc", 512, 32),
    "torchvision:mobilenet_v2": ("classifier.1", 1280, 32),
    "timm:test_resnet": ("fc", 96, 32),
    "timm:test_efficientnet": ("classifier", 256, 32),
    "timm:test_vit": ("head", 64, 160),
}
MORE = {
    "torchvision:alexnet": ("classifier.6", 4096, 64),
    "torchvision:convnext_tiny": ("classifier.2", 768, 64),
    "torchvision:densenet121": ("classifier", 1024, 64),
    "torchvision:efficientnet_b0": ("classifier.1", 1280, 64),
    "torchvision:mnasnet0_5": ("classifier.1", 1280, 64),
    "torchvision:mobilenet_v3_small": ("classifier.3", 1024, 64),
    "torchvision:regnet_x_400mf": ("fc", 400, 64),
    "torchvision:shufflenet_v2_x0_5": ("fc", 1024, 64),
    "torchvision:swin_t": ("head", 768, 64),
    "torchvision:vgg11_bn": ("classifier.6", 4096, 64),
    "torchvision:vit_b_32": ("heads.head", 768, 224),
    "timm:caformer_s18": ("head.fc.fc2", 2048, 64),
    "timm:densenet121": ("classifier", 1024, 64),
    "timm:efficientvit_b0": ("head.classifier.4", 1280, 64),
    "timm:efficientvit_m0": ("head.linear", 192, 224),
    "timm:ghostnet_050": ("classifier", 1280, 64),
    "timm:hrnet_w18_small": ("classifier", 2048, 64),
    "timm:inception_v4": ("last_linear", 1536, 128),
    "timm:mixer_s32_224": ("head", 512, 224),
    "timm:mobilenetv3_small_050": ("classifier", 1024, 64),
    "timm:regnetx_002": ("head.fc", 368, 64),
    "timm:resnet18": ("fc", 512, 64),
    "timm:test_convnext": ("head.fc", 64, 64),
    "timm:test_maxvit": ("head.fc", 128, 160),
    "timm:test_nfnet": ("head.fc", 192, 64),
    "timm:test_vit_relpos": ("head", 96, 160),
    "timm:vgg11": ("head.fc", 4096, 64),
    "timm:xcit_nano_12_p8_224": ("head", 128, 64),
}


class TinyVGG(nn.Module):
    """Convolutions and a classifier of several linear layers."""

    def __init__(self, *last: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), *last)

    def forward(self, images):
        return self.classifier(self.features(images))


def check(name, found, features, size):
    network = build_network(name, {}, num_classes=5).eval()
    assert_is_the_classifier(network, found, features, torch.randn(2, 3, size, size))


def assert_is_the_classifier(network, found, num_features, images):
    """By name and by what it does: the logits are this layer of the features."""
    name, head = classifier_head(network)
    assert (name, head.in_features) == (found, num_features)
    assert network.get_submodule(name) is head
    with torch.no_grad():
        features, logits = forward_features(network, images, head)
        assert features.shape == (len(images), num_features)
        torch.testing.assert_close(head(features), logits)
        torch.testing.assert_close(network(images), logits)


@sampled(one_in=3)
@pytest.mark.parametrize("name", FOUND)
def test_the_classifier_is_found(name):
    check(name, *FOUND[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_the_classifier_is_found_in_more(name):
    check(name, *MORE[name])


def test_the_last_of_several_layers_is_the_classifier():
    images = torch.randn(2, 3, 8, 8)
    assert_is_the_classifier(TinyVGG(nn.Linear(8, 8)), "classifier.4", 8, images)
    assert_is_the_classifier(TinyVGG(nn.Linear(8, 3), nn.Identity()), "classifier.4", 8, images)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.ReLU())
    assert_is_the_classifier(nn.Sequential(trunk, nn.Dropout(0.0), nn.Linear(7, 3)), "2", 7, images)


def test_the_only_layer_and_wrappers():
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.top = nn.ModuleDict({"linear": nn.Linear(3, 2)})

        def forward(self, images):
            return self.top["linear"](images.mean((2, 3)))

    assert_is_the_classifier(Mine(), "top.linear", 3, torch.randn(2, 3, 4, 4))
    assert classifier_head(nn.DataParallel(Mine()))[0] == "top.linear"


def test_a_head_of_ones_own():
    """The last of the known names, and in a module that is no nn.Sequential the last layer."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, features):
            return self.fc2(self.fc1(features).relu())

    network = nn.Module()
    network.head, network.classifier, network.other = nn.Linear(3, 3), Head(), nn.Linear(3, 3)
    assert classifier_head(network)[0] == "classifier.fc2"


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("name", "options", "end"),
    [
        ("torchvision:squeezenet1_1", {}, "SqueezeNet ends in Conv2d"),
        ("timm:dla46_c", {}, "DLA ends in Conv2d"),
        ("timm:test_resnet", {"num_classes": "0"}, "ResNet ends in Identity: .* give it classes"),
        ("timm:deit_tiny_distilled_patch16_224", {"depth": "1"}, "VisionTransformerDistilled ends in 2 classifiers"),
        ("timm:repvit_m0_9", {}, "RepVit ends in 2 linear layers of which any may be it"),
    ],
)
def test_networks_without_one_linear_classifier(name, options, end):
    with torch.device("meta"):
        network = build_network(name, options)
    with pytest.raises(LayerError, match=rf"`network` must end in one linear classifier, {end}"):
        classifier_head(network)


def test_networks_of_ones_own_without_one():
    with pytest.raises(LayerError, match=r"TinyVGG ends in ReLU: .* call its last nn.Linear `fc`"):
        classifier_head(TinyVGG())
    two = nn.Module()
    two.a, two.b = nn.Linear(2, 2), nn.Linear(2, 3)
    with pytest.raises(LayerError, match="ends in 2 linear layers of which any may be it"):
        classifier_head(two)
    two.heads = nn.ModuleList([nn.Linear(2, 3), nn.Linear(4, 3)])
    with pytest.raises(LayerError, match="ends in 2 classifiers"):
        classifier_head(two)
    convolution = nn.Module()
    convolution.top = nn.Conv2d(3, 2, 1)
    with pytest.raises(LayerError, match="Module ends in Conv2d"):
        classifier_head(convolution)
    with pytest.raises(LayerError, match="Sequential ends in Sequential"):
        classifier_head(nn.Sequential())


def test_projection_by_hand():
    head = ProjectionHead(2, 2, 2).double()
    with torch.no_grad():
        for layer, weight, bias in ((head.hidden, [[1, 0], [0, 1]], [0, -5]), (head.out, [[3, 9], [4, 9]], [0, 0])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    found = head(torch.tensor([[2.0, 4.0], [1.0, 6.0]], dtype=torch.float64))
    torch.testing.assert_close(found[0], torch.tensor([0.6, 0.8], dtype=torch.float64))
    torch.testing.assert_close(found[1], torch.tensor([12.0, 13.0], dtype=torch.float64) / (12**2 + 13**2) ** 0.5)


def test_projection_shapes_and_precision():
    head = ProjectionHead(6)
    assert (head.hidden.out_features, head.out.out_features) == (6, 128)
    assert ProjectionHead(6, 4, 3)(torch.randn(2, 5, 6)).shape == (2, 5, 3)
    features = torch.randn(64, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head.out(features).dtype == torch.bfloat16
        embeddings = head(features)
    for found in (embeddings, head.bfloat16()(features.bfloat16())):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dims", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_projection_dimensions(dims):
    message = rf"must be at least 1, got {dims[0]}, {dims[1]} and {dims[2]}"
    with pytest.raises(ArgumentError, match=message):
        ProjectionHead(*dims)
