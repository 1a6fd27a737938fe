"""What a network gets beside the images goes with them, whatever an explainer asks about."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import contrex
from contrex.errors import ArgumentError
from contrex.explain import EXPLAINERS
from contrex.models import Classifier
from explain.networks import network, two_grids
from explain.test_contract import TRANSFORMERS

OPTIONS = {"rise": {"num_masks": 5}, "smooth_grad": {"num_samples": 3}, "integrated_gradients": {"steps": 3}}


class Beside(nn.Module):
    """A network that takes colours and a factor beside the images."""

    def __init__(self, head="mlp"):
        super().__init__()
        self.net = network(head)

    def forward(self, x, colours, factor=1.0):
        return self.net(x + factor * colours[:, :, None, None])


class Bound(nn.Module):
    """The same with the colours of one image: what explains it must give the same map."""

    def __init__(self, net, colours, factor):
        super().__init__()
        self.net, self.factor = net, factor
        self.register_buffer("colours", colours[None])

    def forward(self, x):
        return self.net(x, self.colours.expand(len(x), -1), self.factor)


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 8, 12, generator=generator, dtype=torch.float64)
    return Beside().eval(), images, torch.randn(3, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name not in TRANSFORMERS])
def test_each_image_goes_with_its_own(name, given):
    net, images, colours = given
    net = Beside("pooled").eval() if name == "cam" else net  # whose head must be linear
    net.net = two_grids() if name == "refine_cam" else net.net  # which needs two resolutions
    explain = EXPLAINERS[name](net, **OPTIONS.get(name, {}))
    found = explain(images, target=[1, 2, 3], inputs=(colours, 0.5))
    several = explain.classes(images, classes=[[1], [2], [3]], inputs={"colours": colours, "factor": 0.5})
    torch.testing.assert_close(several.heatmap[:, 0], found.heatmap)
    for n in range(3):
        alone = EXPLAINERS[name](Bound(net, colours[n], 0.5).eval(), **OPTIONS.get(name, {}))
        expected = alone(images[n : n + 1], target=n + 1)
        torch.testing.assert_close(found.logits[n], expected.logits[0])
        torch.testing.assert_close(found.heatmap[n], expected.heatmap[0])
    assert not torch.allclose(found.logits, explain(images, inputs=(colours.flip(0), 0.5)).logits)


def test_captums_go_with_their_own(given):
    pytest.importorskip("captum", reason="contrex[captum] is not installed")
    net, images, colours = given
    found = contrex.Captum(net, "IntegratedGradients", n_steps=3)(images, target=[1, 2, 3], inputs=colours)
    for n in range(3):
        alone = contrex.Captum(Bound(net, colours[n], 1.0).eval(), "IntegratedGradients", n_steps=3)
        torch.testing.assert_close(found.heatmap[n], alone(images[n : n + 1], target=n + 1).heatmap[0])


def test_layers_chunks_and_training(given):
    net, images, colours = given
    explain = contrex.GradCAM(net)
    plain = explain(images, inputs=colours)
    at = explain.layers(images, ["net.features", "net.act"], inputs=colours)
    torch.testing.assert_close(at["net.act"].logits, plain.logits)
    graph = explain(images, inputs=colours, differentiable=True)
    torch.testing.assert_close(graph.heatmap.detach(), plain.heatmap)
    small = contrex.AblationCAM(net, batch_size=2)(images, inputs=colours)
    torch.testing.assert_close(small.heatmap, contrex.AblationCAM(net)(images, inputs=colours).heatmap)


def test_pictures_with_inputs(given):
    net, _, colours = given
    photos = [Image.fromarray(np.full((9, 9, 3), value, np.uint8)) for value in (0, 200)]
    seen = Classifier(net, (0.5,) * 3, (0.5,) * 3, image_size=8, names=("a", "b", "c", "d"))
    why = contrex.why(photos, seen, target="b", inputs=colours[:2])
    assert not torch.equal(why.logits[0], why.logits[1])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 3), r"`inputs` 0 must have a row for each of the 3 image\(s\), got \[2, 3\]"),
        ({"colours": torch.zeros(1, 3)}, r"`inputs` 'colours' must have a row for each .*expand\(len\(images\)"),
        (3.0, "`inputs` must be a tensor, a tuple of arguments or a mapping by name, got float"),
    ],
)
def test_inputs_that_do_not_fit(given, inputs, message):
    net, images, _ = given
    with pytest.raises(ArgumentError, match=message):
        contrex.GradCAM(net)(images, inputs=inputs)


def test_an_explainer_that_does_not_say_which_images_it_asks_about(given):
    net, images, colours = given

    class Twice(contrex.Gradient):
        def _forward(self, images, *, differentiable):
            return super()._forward(torch.cat([images, images]), differentiable=differentiable)

    with pytest.raises(ArgumentError, match=r"`inputs` are for 3 image\(s\), and this method asks about 6 without"):
        Twice(net)(images, inputs=colours)
