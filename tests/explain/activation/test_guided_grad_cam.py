"""Guided Grad-CAM against its two parts, and beside captum."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrex.errors import LayerError
from contrex.explain import GradCAM, GuidedBackprop, GuidedGradCAM
from explain.activation.test_activation_methods import TARGET, close
from explain.networks import images, network
from oracles import cams


def maps_of(net, image):
    """The map of each class for one image [1,C,H,W]: Grad-CAM at `act` and guided backprop by their oracles."""
    activation = net.act(net.features(image)).detach()
    coarse = [cams.grad_cam(activation[0], g) for g in cams.class_gradients(net.head, activation, 4)]
    found = []
    for k, one in enumerate(coarse):
        up = F.interpolate(one.clamp(min=0)[None, None], image.shape[2:], mode="bilinear", align_corners=False)[0, 0]
        found.append(up * guided(net, image, k))
    return found


def guided(net, image, k):
    """`sum_c R_c` by hooks on the network's modules: each ReLU sends back the positive part of what it would send."""
    relus = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    handles = [one.register_full_backward_hook(lambda m, sent, received: (sent[0].clamp(min=0),)) for one in relus]
    pixels = image.clone().requires_grad_()
    net(pixels)[0, k].backward()
    [handle.remove() for handle in handles]
    net.zero_grad()
    return pixels.grad[0].sum(0)


@pytest.mark.parametrize("head", ["pooled", "mlp"])
def test_guided_grad_cam(head):
    net, x = network(head), images()
    cams.assert_contrasted(GuidedGradCAM(net, "act"), x, TARGET, [maps_of(net, image[None]) for image in x])


def test_it_is_the_product_of_its_parts_of_the_images_size():
    net, x = network("mlp"), images()
    why = GuidedGradCAM(net)(x, target=1)
    parts = [GradCAM(net)(x, target=1).positive().resize((8, 12)).heatmap, GuidedBackprop(net)(x, target=1).heatmap]
    close(why.heatmap, parts[0] * parts[1])
    assert why.place == "act, 4 x 6"
    found = GuidedGradCAM(net).layers(x, ["features", "act"], target=1)
    close(found["act"].heatmap, why.heatmap)
    assert not torch.allclose(found["features"].heatmap, why.heatmap)


def test_it_needs_relus():
    net = network("mlp")
    net.features[1], net.act = nn.SiLU(), nn.SiLU()
    with pytest.raises(LayerError, match="the model has no ReLU whose backward rule could be changed"):
        GuidedGradCAM(net)(images())


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_captum():
    captum = pytest.importorskip("captum.attr")
    net, x, target = network("mlp").float(), images().float(), torch.tensor(TARGET)
    expected = captum.GuidedGradCam(net, net.act).attribute(x, target, interpolate_mode="bilinear")
    close(GuidedGradCAM(net, "act")(x, target=target).heatmap, expected.detach().sum(1), rtol=1e-4, atol=1e-7)
