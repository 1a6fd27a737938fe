"""Why a picture is one class, from files, Pillow images and arrays."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import contrex
from contrex.data.views.squares import central_square, pixels
from contrex.errors import ArgumentError, ImageError, UnknownNameError
from contrex.models import Classifier
from contrex.models.own import own_classifier
from explain.networks import network

NAMES = ("tabby", "tiger cat", "lynx", "fox")


@pytest.fixture
def classifier():
    return Classifier(network("mlp").float(), (0.5,) * 3, (0.25,) * 3, image_size=16, short_side=20, names=NAMES)


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_a_file_is_explained_as_the_network_sees_it(classifier, photo, tmp_path):
    photo.save(tmp_path / "cat.png")
    why = contrex.why(tmp_path / "cat.png", classifier, target="lynx", contrast="fox")
    square = central_square(photo, resize=20, size=16)
    inputs = classifier.normalise(pixels(square)[None])
    assert torch.equal(why.heatmap, contrex.GradCAM(classifier.network)(inputs, target=2, contrast=3).heatmap)
    np.testing.assert_array_equal(why.images[0].pixels, np.asarray(square))
    assert (why.images[0].name, why.images[0].is_file) == ("cat.png", True)
    assert why.images[0].sha256 == hashlib.sha256((tmp_path / "cat.png").read_bytes()).hexdigest()
    assert repr(why).startswith("Explanation(why lynx rather than fox? lynx ")
    assert why.overlay().size == (16, 16)


def test_every_kind_of_picture_gives_the_same(classifier, photo, tmp_path):
    photo.save(tmp_path / "cat.png")
    values = np.asarray(photo)
    kinds = [str(tmp_path / "cat.png"), photo, values, values.astype(np.float64) / 255]
    several = contrex.why(kinds, classifier)
    assert len(several) == len(several.images) == 4
    for one in (*several, contrex.why(values[None], classifier)):
        torch.testing.assert_close(one.heatmap, several[0].heatmap)
    grey = values[..., 0]
    alike = contrex.why([grey, grey[..., None], Image.fromarray(grey)], classifier)
    assert torch.equal(alike.heatmap[0], alike.heatmap[1])
    assert torch.equal(alike.heatmap[0], alike.heatmap[2])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "got a tensor, of which nobody knows .*contrex.GradCAM"),
        ([], "`images` is empty"),
        (3, "`images` must be files, Pillow images or arrays, got int"),
        (np.zeros((3, 8, 9), np.uint8), r"got \[3, 8, 9\]: channels are last"),
        (np.full((8, 8, 3), 2.0), r"must be in \[0, 1\], finite and not normalised"),
        (np.full((8, 8, 3), np.nan), r"must be in \[0, 1\], finite"),
        (np.zeros((8, 8, 3), np.int64), r"must be uint8, or floating point in \[0, 1\]; got int64"),
    ],
)
def test_what_is_no_picture_is_refused(classifier, picture, message):
    with pytest.raises(ArgumentError, match=message):
        contrex.why(picture, classifier)


def test_pictures_that_cannot_be_read_are_refused(classifier, tmp_path):
    with pytest.raises(ImageError, match="there is no such file"):
        contrex.why(tmp_path / "none.png", classifier)
    with pytest.raises(ImageError, match=r"cannot use the image F"):
        contrex.why(Image.new("F", (9, 9)), classifier)


def test_what_is_not_known_of_a_network_is_asked(photo, classifier):
    with pytest.raises(ArgumentError, match=r"`classifier` Net does not say .*: pass `size`, `mean`, `std`.*size=224"):
        contrex.why(photo, classifier.network)
    with pytest.raises(ArgumentError, match="pass `size` as in its training"):
        contrex.why(photo, Classifier(classifier.network, (0.5,) * 3, (0.25,) * 3))
    with pytest.raises(ArgumentError, match=r"`classifier` must be a network or a contrex.models.Classifier, got str"):
        contrex.why(photo, "resnet18")
    given = contrex.why(photo, classifier.network, size=16, short_side=20, mean=(0.5,), std=(0.25,), names=NAMES)
    assert torch.equal(given.heatmap, contrex.why(photo, classifier).heatmap)
    assert given.names == NAMES


@pytest.mark.parametrize(
    ("view", "kind", "message"),
    [
        ({"size": 0}, ArgumentError, "`size` must be at least 1 pixel, got 0"),
        ({"size": 16, "short_side": 8}, ArgumentError, "`short_side` 8 must be at least the square's side, `size` 16"),
        ({"interpolation": "cubic"}, UnknownNameError, "Did you mean 'bicubic'"),
        ({"mean": (1.0, 2.0)}, ArgumentError, "`mean` must be one value or three"),
        ({"std": (0.0,)}, ArgumentError, "`std` must be one value or three"),
        ({"names": ("cat",)}, ArgumentError, "`names` must be one for each of the model's 4 classes, got 1"),
    ],
)
def test_a_view_that_does_not_fit_is_refused(classifier, photo, view, kind, message):
    with pytest.raises(kind, match=message):
        contrex.why(photo, classifier, **view)


def test_networks_of_libraries_say_what_they_know():
    net = network("mlp")
    net.pretrained_cfg = {
        "input_size": (3, 24, 24), "mean": (0.5,) * 3, "std": (0.2,) * 3, "crop_pct": 0.8, "interpolation": "bicubic",
    }  # fmt: skip
    net.config = type("Config", (), {"id2label": {0: "a", 1: "b", 2: "c", 3: "d"}})
    found = own_classifier(net, mean=(0.1,))
    assert (found.image_size, found.short_side, found.interpolation) == (24, 30, "bicubic")
    assert (found.mean, found.std, found.names) == ((0.1,) * 3, (0.2,) * 3, ("a", "b", "c", "d"))
    net.config.id2label = {index: f"LABEL_{index}" for index in range(4)}
    assert own_classifier(net).names == ()


def test_an_image_processor_says_how_pictures_are_seen(photo):
    does = {
        "size": {"shortest_edge": 20},
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
        "resample": 3,
    }
    processor = type(
        "Processor", (), {"to_dict": lambda self: {**does, "image_mean": [0.5] * 3, "image_std": [0.2] * 3}}
    )
    net = network("mlp").float()
    found = own_classifier(net, processor=processor(), std=(0.25,))
    assert (found.image_size, found.short_side, found.interpolation) == (16, 20, "bicubic")
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert own_classifier(Classifier(net, (0.0,) * 3, (1.0,) * 3), processor=processor()).mean == (0.5,) * 3
    assert contrex.why(photo, net, processor=processor()).images[0].pixels.shape == (16, 16, 3)
    with pytest.raises(ArgumentError, match=r"`processor` must be an image processor of transformers, got str"):
        contrex.why(photo, net, processor="microsoft/resnet-50")


def test_explainers_by_name_by_class_and_made(classifier, photo):
    by_name, by_class, made = (
        contrex.why(photo, classifier, explainer=one)
        for one in ("layer_cam", contrex.LayerCAM, lambda net: contrex.LayerCAM(net, output=lambda logits: logits))
    )
    assert torch.equal(by_name.heatmap, by_class.heatmap)
    assert torch.equal(by_name.heatmap, made.heatmap)
    with pytest.raises(ArgumentError, match="`explainer` must be a name, or a class or function that makes one; got 3"):
        contrex.why(photo, classifier, explainer=3)


class Dictionary(nn.Module):
    """A network whose logits have a name that nobody can know."""

    def __init__(self):
        super().__init__()
        self.net = network("mlp")

    def forward(self, x):
        return {"scores": self.net(x), "also": x.mean((2, 3))}


@pytest.mark.parametrize("name", ["grad_cam", "gradient", "rise", "lrp", "excitation_backprop", "ablation_cam"])
def test_output_finds_the_logits(name):
    kind = contrex.EXPLAINERS[name]
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"num_masks": 4} if name == "rise" else {}
    found = kind(Dictionary().eval(), output=lambda returned: returned["scores"], **options)(x, target=1)
    expected = kind(network("mlp"), **options)(x, target=1)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.heatmap, expected.heatmap)


def test_an_output_that_finds_no_logits_is_refused():
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    for output, message in (
        (lambda returned: returned["logits"], r"`output` cannot read what Dictionary returned, dict .*raises KeyError"),
        (lambda returned: returned["scores"][0], r"`output` must give logits \[2,K\], .*it gave a tensor \[4\]"),
        (None, r"pass the explainer `output=`, a function that finds them"),
    ):
        with pytest.raises(ArgumentError, match=message):
            contrex.Gradient(Dictionary().eval(), output=output)(x)
    with pytest.raises(ArgumentError, match="`output` must be a function of what the model returns, got str"):
        contrex.Gradient(Dictionary(), output="scores")


def test_one_reading_is_not_anothers():
    net, x = Dictionary().eval(), torch.randn(1, 3, 8, 12, dtype=torch.float64)
    first, second = (contrex.Gradient(net, output=lambda got, key=key: got[key]) for key in ("scores", "also"))
    assert [explain(x).logits.shape[1] for explain in (first, second, first)] == [4, 3, 4]


# --- another class was expected -------------------------------------------------------------------------------------


def test_why_not_asks_three_questions(classifier, photo, tmp_path):
    plain = contrex.why(photo, classifier)
    predicted = int(plain.target)
    expected = (predicted + 1) % 4
    found = contrex.why_not(photo, classifier, NAMES[expected], explainer="layer_cam")
    assert (found.expected, found.is_as_expected) == (expected, False)
    assert found.target.tolist() == [[predicted, predicted, expected]]
    asked = [(predicted, None), (predicted, expected), (expected, predicted)]
    for column, (target, contrast) in zip(found.columns(), asked, strict=True):
        one = contrex.why(photo, classifier, explainer="layer_cam", target=target, contrast=contrast)
        assert torch.equal(column.heatmap, one.heatmap)
    said, wanted = NAMES[predicted], NAMES[expected]
    assert f"why {said}?, why {said} rather than {wanted}?, why {wanted} rather than {said}?" in repr(found)
    found.save(tmp_path / "why.json")
    record = json.loads((tmp_path / "why.json").read_text())
    assert (record["kind"], record["expected"]["name"]) == ("ExpectedExplanation", wanted)
    assert not record["expected"]["is_predicted"]
    assert [one["question"] for one in record["questions"][0]][2] == f"why {wanted} rather than {said}?"
    found.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as drawn:
        assert drawn.width > 3 * 256


def test_why_not_explains_what_was_expected_alone(classifier, photo):
    plain = contrex.why(photo, classifier)
    found = contrex.why_not(photo, classifier, int(plain.target))
    assert found.is_as_expected
    assert torch.equal(found.heatmap[:, 0], plain.heatmap)
    assert len(found.columns()) == 1


def test_why_not_refuses_what_it_cannot_ask(classifier, photo):
    with pytest.raises(UnknownNameError, match=r"`expected` must be one of tabby, .*; got 'tabbi'"):
        contrex.why_not(photo, classifier, "tabbi")
    with pytest.raises(ArgumentError, match=r"`expected` .* 4"):
        contrex.why_not(photo, classifier, 4)
    with pytest.raises(ArgumentError, match="`image` must be one picture, got 2: call why_not for each"):
        contrex.why_not([photo, photo], classifier, 0)
