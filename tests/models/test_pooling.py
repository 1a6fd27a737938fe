"""Maximum and log-sum-exp in the place of a global average pooling: formulas, networks, heatmaps, what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from contrex import CAM, GradCAM, HiResCAM
from contrex.errors import ArgumentError, LayerError
from contrex.methods import training_step
from contrex.models import build_network, load_classifier, with_pooling
from contrex.models.pooling import GlobalPooling
from contrex.settings import CGC, Model
from methods.test_steps import make_batch, make_classifier
from oracles import consistency
from oracles import pooling as oracle
from sampling import sampled

slow = pytest.mark.slow
POOLINGS = [("mean", 1.0), ("max", 1.0), ("logsumexp", 0.3), ("logsumexp", 2.0)]


def maps_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@sampled(one_in=2)
@pytest.mark.parametrize(("kind", "temperature"), POOLINGS)
def test_pooling_is_its_formula(kind, temperature):
    maps = maps_of(2, 3, 4, 5).requires_grad_()
    pool = GlobalPooling(kind, temperature)
    expected = torch.tensor([[oracle.pooled(cells, kind, temperature) for cells in image] for image in maps.detach()])
    torch.testing.assert_close(pool(maps)[:, :, 0, 0], expected.double())
    last = GlobalPooling(kind, temperature, (1, 2), keepdim=False)
    torch.testing.assert_close(last(maps.permute(0, 2, 3, 1)), pool(maps).flatten(1))
    assert torch.autograd.gradcheck(pool, maps)
    assert torch.autograd.gradgradcheck(pool, maps)


def test_logsumexp_lies_between_mean_and_maximum_and_overflows_nowhere():
    maps = 1000 * maps_of(2, 3, 4, 4).float()
    mean, small, large, most = (GlobalPooling(*options)(maps) for options in
                                (("mean",), ("logsumexp", 1e-3), ("logsumexp", 1e7), ("max",)))  # fmt: skip
    torch.testing.assert_close(small, most, rtol=1e-4, atol=0.1)
    torch.testing.assert_close(large, mean, rtol=1e-2, atol=2.0)
    half = GlobalPooling("logsumexp", 0.1)(maps.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("torchvision:resnet18", "avgpool"),
        pytest.param("timm:mobilenetv2_100", "global_pool.pool", marks=slow),
        pytest.param("torchvision:mobilenet_v2", None, marks=slow),  # averages in its own code
        ("torchvision:squeezenet1_1", None),  # a convolution makes the logits
        pytest.param("torchvision:efficientnet_b0", "avgpool", marks=slow),  # squeeze-and-excitation averages too
        pytest.param("timm:efficientnet_b0", "global_pool.pool", marks=slow),
        pytest.param("timm:resnetv2_50", None, marks=slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", "head.global_pool.pool", marks=slow),
        pytest.param("torchvision:mobilenet_v3_small", None, marks=slow),  # two linear layers
        pytest.param("torchvision:vgg11", None, marks=slow),
        pytest.param("torchvision:convnext_tiny", None, marks=slow),  # a norm in between
        pytest.param("timm:vit_tiny_patch16_224", None, marks=slow),
    ],
)
def test_networks(name, place):
    with torch.device("meta"):
        network = build_network(name, {})
    keys = list(network.state_dict())
    if place is None:
        with pytest.raises(ArgumentError, match=r"`model.pooling` changes a global average pooling in front of"):
            with_pooling(network, "max")
        return
    assert with_pooling(network, "mean") is network
    assert not any(isinstance(module, GlobalPooling) for module in network.modules())
    with_pooling(network, "max")
    assert [key for key, module in network.named_modules() if isinstance(module, GlobalPooling)] == [place]
    assert list(network.state_dict()) == keys


@pytest.mark.parametrize("name", ["contrex:convnet", "timm:resnet10t"])
@pytest.mark.parametrize(("kind", "temperature"), POOLINGS[1:3])
def test_the_logits_are_those_of_the_pooled_features(name, kind, temperature):
    torch.manual_seed(0)
    options = {} if name == "contrex:convnet" else {"channels": "(4, 4, 4, 8)", "stem_width": "4"}
    network = load_classifier(Model(name, options, pooling=kind, pooling_temperature=temperature), num_classes=3)
    network = network.network.double().eval()
    images = maps_of(2, 3, 64, 64)
    features = network.features(images) if name == "contrex:convnet" else network.forward_features(images)
    expected = [[oracle.pooled(cells, kind, temperature) for cells in image] for image in features]
    torch.testing.assert_close(network(images), network.fc(torch.tensor(expected, dtype=torch.float64)))


def test_heatmaps_behind_the_maximum():
    """The gradient is in one cell of each channel: Grad-CAM averages it, HiResCAM does not, and CAM is not defined."""
    classifier = make_classifier()
    network = with_pooling(classifier.network, "max").eval()
    images = maps_of(3, 3, 16, 16)
    for explainer in (GradCAM(network), HiResCAM(network)):
        explainer(torch.zeros_like(images))  # of a flat map maximum and mean, and their gradients, are one
        explanation = explainer(images)
        features = network.features(images).detach().requires_grad_()
        logits = network.fc(features.amax((2, 3)))
        (gradient,) = torch.autograd.grad(logits.gather(1, explanation.target[:, None]).sum(), features)
        weights = gradient.mean((2, 3), keepdim=True) if isinstance(explainer, GradCAM) else gradient
        torch.testing.assert_close(explanation.heatmap, (weights * features.detach()).sum(1))
    assert not torch.allclose(GradCAM(network)(images).heatmap, HiResCAM(network)(images).heatmap)
    with pytest.raises(LayerError, match="CAM needs global average pooling"):
        CAM(network)(images)


@pytest.mark.parametrize(("kind", "temperature"), POOLINGS[1:3])
def test_cgc_behind_another_pooling_is_its_equation(kind, temperature):
    classifier, batch = make_classifier(), make_batch()
    network = with_pooling(classifier.network, kind, temperature)
    output = training_step(classifier, CGC(weight=0.7, resolution=16)).eval()(batch)
    features = network.features(torch.cat([batch.images, batch.views[0].pixels]) * 4 - 2)
    logits = network.fc(network.pooling(features))
    target = logits[:4].argmax(1).repeat(2)
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), features, create_graph=True)
    plain, view = (gradient * features).sum(1).chunk(2)
    crop = batch.views[0].crop
    sides = (crop.top, crop.left, crop.height, crop.width, crop.flip)
    boxes = list(zip(*(side.tolist() for side in sides), strict=True))
    term = consistency.cgc_losses(plain, view, boxes, size=(16, 16), temperature=0.5, variant="paper").mean()
    expected = nn.functional.cross_entropy(logits, batch.labels.repeat(2)) + 0.7 * term
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    own = [parameter.grad for parameter in network.parameters()]
    for found, gradient in zip(own, torch.autograd.grad(expected, list(network.parameters())), strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-10)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match=r"`model.pooling_temperature` 0.5 is that of logsumexp, and `model.poo"):
        Model(pooling="max", pooling_temperature=0.5)
    with pytest.raises(ArgumentError, match=r"`model.pooling_temperature` must be positive, got 0"):
        Model(pooling="logsumexp", pooling_temperature=0)
    assert replace(Model(), pooling="max").pooling == "max"
