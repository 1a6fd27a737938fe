"""ShapleyCAM against its equation with the whole Hessian, and where it is Grad-CAM."""

import pytest
import torch
from torch import nn

from contrex.explain import GradCAM, ShapleyCAM
from explain.activation.test_activation_methods import (
    SCORES,
    TARGET,
    assert_explained,
    by_grad_cam_package,
    close,
    parts,
)
from explain.networks import HEADS, images, network
from oracles import activation_methods as oracles
from sampling import crossed, sampled

PLACES = [*((head, "act") for head in HEADS), ("mlp", "features")]


@sampled(one_in=2)
@pytest.mark.parametrize(("place", "score"), crossed(PLACES, SCORES, one_in=5))
def test_shapley_cam(place, score):
    head, layer = place
    net, x = network(head), images(3, (4, 6))
    trunk, rest = parts(net, layer)

    def maps_of(image):
        activation = trunk(image).detach()[0]
        scores = [lambda a, k=k: SCORES[score](rest(a[None]))[0, k] for k in range(4)]
        return [oracles.shapley_cam(activation, one) for one in scores]

    assert_explained(ShapleyCAM(net, layer), x, maps_of, score=score)


@pytest.mark.parametrize("head", ["pooled", "relu"])
def test_it_is_grad_cam_where_nothing_behind_the_layer_is_curved(head):
    net, x = network("pooled" if head == "pooled" else "mlp"), images()
    if head == "relu":
        net.head[3] = nn.ReLU()
    for layer in ("act", "features"):
        for contrast in (None, "weighted"):
            asked = {"target": TARGET, "contrast": contrast}
            close(ShapleyCAM(net, layer)(x, **asked).heatmap, GradCAM(net, layer)(x, **asked).heatmap)
    curved = [kind(net, "act")(x, score="probability").heatmap for kind in (ShapleyCAM, GradCAM)]
    assert not torch.allclose(*curved, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("head", ["pooled", "mlp"])
def test_agrees_with_pytorch_grad_cam(head):
    net, x = network(head).float(), images(2, (16, 16)).float()
    found = ShapleyCAM(net, "act")(x, target=2).heatmap
    close(found, by_grad_cam_package("ShapleyCAM", net, x, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_papers_score_is_the_sum_of_two():
    pgc = pytest.importorskip("pytorch_grad_cam")
    rest = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputReST
    net, x = network("mlp").float(), images(2, (16, 16)).float()
    with pgc.ShapleyCAM(model=net, target_layers=[net.act]) as cam:
        expected = torch.as_tensor(cam(input_tensor=x, targets=[rest(2)] * 2))
    found = [ShapleyCAM(net, "act")(x, target=2, score=score) for score in ("logit", "log_probability")]
    heatmap = (found[0].heatmap + found[1].heatmap).relu()
    stretched = (heatmap - heatmap.amin((1, 2), keepdim=True)) / (heatmap.amax((1, 2), keepdim=True) + 1e-7)
    resized = torch.nn.functional.interpolate(stretched[:, None], (16, 16), mode="bilinear")[:, 0]
    close(resized / resized.amax((1, 2), keepdim=True), expected, rtol=1e-3, atol=1e-3)
