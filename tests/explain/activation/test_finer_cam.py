"""The contrast with the nearest classes through Grad-CAM, against pytorch-grad-cam's FinerCAM on MobileNetV2."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import contrex
from conftest import shared
from contrex.models import load_classifier
from contrex.models.zero_shot import ZeroShot
from contrex.settings import Model
from explain.networks import images, two_grids
from oracles import cams

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's


def finer_cam(net, layer, x, target, k, alpha):
    """The map of the peer before it is rectified and scaled, which pytorch-grad-cam does not give."""
    pgc = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.finer_cam import FinerCAM

    seen = []

    class Seen(pgc.GradCAM):
        def get_cam_image(self, *args, **kwargs):
            seen.append(super().get_cam_image(*args, **kwargs))
            return seen[-1]

    with FinerCAM(net, [layer], base_method=Seen) as cam:
        cam(x, alpha=alpha, comparison_categories=list(range(1, k + 1)), target_idx=target)
    return torch.as_tensor(seen[-1])


def largest_difference(net, layer, x, target, k, alpha):
    why = contrex.GradCAM(net, layer)(x, target=target, contrast=f"nearest(k={k}, alpha={alpha})")
    expected = finer_cam(net, layer, x, target, k, alpha)
    return float((why.heatmap - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("k", "alpha"), [pytest.param(3, 1.0, marks=pytest.mark.slow), (5, 0.6)])
def test_grad_cam_of_the_nearest_is_finer_cam_on_mobilenet(k, alpha):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    net = mobilenet_v2(num_classes=20).eval()
    with torch.no_grad():  # logits of the size that a trained network has
        net.classifier[1].weight *= 1e3
    x = torch.randn(2, 3, 64, 64)
    for target in (None, 4):
        assert largest_difference(net, net.features, x, target, k, alpha) < 1e-5


def test_the_nearest_of_prompts_compete_too():
    """A classifier of texts: the two that fit the image best after the target, as the difference of their maps."""
    tower = two_grids()
    texts = torch.randn(4, 4, generator=torch.Generator().manual_seed(4))
    prompts = ("a tabby", "a tiger cat", "a lynx", "a dog")
    net = ZeroShot(tower, texts, torch.tensor(3.0), classes=prompts).double().eval()
    x, target = images(), [0, 1, 3]
    maps = contrex.GradCAM(net, names=prompts).classes(x, classes=range(4)).heatmap
    cams.assert_contrasted(contrex.GradCAM(net, names=prompts), x, target, list(maps))
    why = contrex.GradCAM(net, names=prompts)(x, target="a tabby", contrast="nearest(k=2, alpha=0.6)")
    expected = (why.logits - why.logits[:, :1]).abs().argsort(1)[:, 1:3]
    assert why.foils is not None
    assert torch.equal(why.foils.sort(1).values, expected.sort(1).values)
    assert "why a tabby and not the nearest classes" in repr(why[0])


@pytest.mark.slow
def test_grad_cam_of_the_nearest_is_finer_cam_with_trained_weights():
    weights = shared("data", "weights", "mobilenetv2_100_timm_same.pth")
    classifier = load_classifier(Model("timm:mobilenetv2_100", weights=weights))
    torch.manual_seed(0)
    x = nn.functional.interpolate(torch.randn(2, 3, 14, 14), 224, mode="bicubic")
    layer = classifier.network.bn2
    for k, alpha in ((3, 1.0), (3, 0.6), (1, 1.0), (10, 2.0)):
        for target in (None, 281):
            assert largest_difference(classifier.network, layer, x, target, k, alpha) < 1e-5
