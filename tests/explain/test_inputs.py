"""What a network gets beside the images goes with them, whatever an explainer asks about."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import contrex
from contrex.errors import ArgumentError
from contrex.explain import EXPLAINERS
from contrex.models import Arguments, Classifier
from explain.networks import network, two_grids
from explain.test_contract import TRANSFORMERS
from sampling import crossed, sampled

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


@pytest.mark.parametrize("name", crossed([name for name in EXPLAINERS if name not in TRANSFORMERS], one_in=2, start=1))
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


class Pair(nn.Module):
    """Two images through one encoder, and what they have in common."""

    def __init__(self):
        super().__init__()
        self.encoder = network().features
        self.act, self.fc = nn.ReLU(), nn.Linear(6, 4).double()
        self.double().eval()

    def encoded(self, x):
        return self.act(self.encoder(x)).mean((2, 3))

    def forward(self, left, right):
        return self.fc(self.encoded(left) * self.encoded(right).square())


class Half(nn.Module):
    """The same for one image on its own, the other one bound."""

    def __init__(self, pair, other, *, is_left):
        super().__init__()
        self.pair, self.is_left = pair, is_left
        with torch.no_grad():
            self.other = pair.encoded(other)
        self.act = nn.ReLU()

    def forward(self, x):
        own = self.act(self.pair.encoder(x)).mean((2, 3))
        return self.pair.fc(own * self.other.square() if self.is_left else self.other * own.square())


@sampled(one_in=2)
@pytest.mark.parametrize("name", ["grad_cam", "gradient", "occlusion", "ablation_cam"])
def test_either_image_of_a_pair(name):
    """The layer is found: it runs twice, but once on what depends on the image that is explained."""
    net, left, right = Pair(), torch.randn(2, 3, 8, 12).double(), torch.randn(2, 3, 8, 12).double()
    explain = EXPLAINERS[name](net)
    found = [explain(left, target=1, inputs=right), explain(right, target=1, inputs=Arguments(left, of=1))]
    torch.testing.assert_close(found[0].logits, found[1].logits)
    for n in range(2):
        for why, one, other in ((found[0], left, right), (found[1], right, left)):
            alone = EXPLAINERS[name](Half(net, other[n : n + 1], is_left=one is left))
            torch.testing.assert_close(why.heatmap[n], alone(one[n : n + 1], target=1).heatmap[0])
    if name == "grad_cam":
        assert (found[0].layer, found[1].layer) == ("act:0", "act:1")
        named = contrex.GradCAM(net, "act")(right, target=1, inputs=Arguments(left, of=1))
        torch.testing.assert_close(named.heatmap, found[1].heatmap)


def test_images_among_the_arguments(given):
    """By place, by name, and inside of a mapping or a list."""
    net, images, colours = given

    class Packed(nn.Module):
        def __init__(self, read):
            super().__init__()
            self.net, self.read = net, read

        def forward(self, *placed, **named):
            return self.net(*self.read(*placed, **named))

    expected = contrex.SmoothGrad(net, num_samples=3, batch_size=2)(images, inputs=(colours, 0.5))
    ways = [
        (lambda c, x, f: (x, c, f), Arguments(colours, 0.5, of=1)),
        (lambda c, image, f: (image, c, f), Arguments(colours, f=0.5, of="image")),
        (lambda one: (one["image"], one["colours"], 0.5), Arguments({"colours": colours}, of=(0, "image"))),
        (lambda one: (one[1], one[0], 0.5), Arguments([colours], of=(0, 1))),
        (lambda f, one: (*one["in"], f), Arguments(0.5, one={"in": (colours,)}, of=("one", "in", 0))),
    ]
    for read, inputs in ways:
        explain = contrex.SmoothGrad(Packed(read).eval(), num_samples=3, batch_size=2)
        torch.testing.assert_close(explain(images, inputs=inputs).heatmap, expected.heatmap)
    alone = contrex.Gradient(Packed(lambda pixels: (pixels, pixels.mean((2, 3)), 0.5)).eval())
    assert alone(images, inputs=Arguments(of="pixels")).heatmap.shape == (3, 8, 12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda c: Arguments(c, of=2),
            r"`of` must be where the images go, a place in 0..1 or a name .*got 2 beside 1 arg",
        ),
        (lambda c: Arguments(c, of="c", c=c), "`of` must be where the images go, .*; got 'c' beside 1 argument"),
        (lambda c: Arguments(c, of=(1, "image")), r"`of` must be where the images go, .*; got \(1, 'image'\)"),
        (lambda c: Arguments(c, of=(0, "image")), "`of` names 'image' inside of what is no mapping or list but Tensor"),
        (lambda c: Arguments({"a": [c[:2]]}, of=1), r"`inputs` 0 must have a row for each of the 3 image.*\[2, 3\]"),
    ],
)
def test_places_that_are_none(given, make, message):
    net, images, colours = given
    with pytest.raises(ArgumentError, match=message):
        contrex.Gradient(net)(images, inputs=make(colours))
