"""Every explainer against its equation, on every kind of head, for every contrast."""

import pytest
import torch

import contrex
from explain.networks import HEADS, images, network
from oracles import cams
from sampling import crossed

METHODS = {"grad_cam": (contrex.GradCAM, cams.grad_cam), "hires_cam": (contrex.HiResCAM, cams.hires_cam)}


@pytest.mark.parametrize(
    ("layer", "method", "head"), crossed(["act", "features", "features.0"], METHODS, HEADS, one_in=3)
)
def test_activation_methods(method, head, layer):
    explainer, formula = METHODS[method]
    net, x, target = network(head), images(), [0, 1, 3]
    parts = {"act": (lambda z: net.act(net.features(z)), net.head)}
    parts["features"] = (net.features, lambda a: net.head(net.act(a)))
    parts["features.0"] = (net.features[0], lambda a: net.head(net.act(net.features[1:](a))))
    trunk, rest = parts[layer]
    activations = [trunk(image[None]).detach() for image in x]
    maps = [[formula(a[0], gradient) for gradient in cams.class_gradients(rest, a, 4)] for a in activations]
    cams.assert_contrasted(explainer(net, layer), x, target, maps)


def test_gradient():
    net, x = network("mlp"), images()
    maps = [[g.sum(0) for g in cams.class_gradients(net, image[None], 4)] for image in x]
    cams.assert_contrasted(contrex.Gradient(net), x, [0, 1, 3], maps)


def test_pooled_and_elementwise_are_two_methods():
    """Equal behind global average pooling, different elsewhere: they must never share a name."""
    x = images()
    for head, equal in (("pooled", True), ("mlp", False)):
        net = network(head)
        pooled, elementwise = (kind(net, "act")(x).heatmap for kind in (contrex.GradCAM, contrex.HiResCAM))
        assert torch.allclose(pooled, elementwise) == equal


def test_probability_has_the_direction_of_the_weighted_contrast():
    """Proposition 2, through a whole network: the gradient of p_t is p_t (1 - p_t) times the weighted contrast."""
    net, x = network("mlp"), images().requires_grad_()
    probs = net(x).softmax(1)
    target = probs.argmax(1)
    p = probs.gather(1, target[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(p.sum(), x)
    weighted = contrex.Gradient(net)(x.detach(), target=target, contrast="weighted").heatmap
    torch.testing.assert_close(gradient.sum(1), (p * (1 - p)).detach()[:, None, None] * weighted)


def test_agrees_with_captum_and_grad_cam():
    captum = pytest.importorskip("captum.attr")
    net, x, target = network("mlp").float(), images().float(), torch.tensor([0, 1, 3])
    theirs = captum.LayerGradCam(net, net.act).attribute(x, target)
    torch.testing.assert_close(contrex.GradCAM(net, "act")(x, target=target).heatmap, theirs.detach()[:, 0])
    theirs = captum.LayerGradientXActivation(net, net.act).attribute(x, target)
    torch.testing.assert_close(contrex.HiResCAM(net, "act")(x, target=target).heatmap, theirs.detach().sum(1))
    saliency = captum.Saliency(net).attribute(x.requires_grad_(), target, abs=False)
    torch.testing.assert_close(contrex.Gradient(net)(x.detach(), target=target).heatmap, saliency.sum(1))


@pytest.mark.filterwarnings("default")
def test_agrees_with_pytorch_grad_cam():
    pgc = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    net, x = network("mlp").float(), images(1, (16, 16)).float()
    for theirs, ours in ((pgc.GradCAM, contrex.GradCAM), (pgc.HiResCAM, contrex.HiResCAM)):
        with theirs(model=net, target_layers=[net.act]) as cam:
            expected = torch.from_numpy(cam(input_tensor=x, targets=[targets.ClassifierOutputTarget(2)]))
        found = ours(net, "act")(x, target=2).positive().resize(16).heatmap
        assert (found - found.min()).max() > 0
        torch.testing.assert_close(found / found.max(), expected, rtol=1e-3, atol=1e-3)
