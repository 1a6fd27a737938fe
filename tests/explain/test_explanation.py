"""Explanations keep what they explain, and show it: a line, a picture, files."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import contrex
from contrex.errors import ArgumentError, UnknownNameError
from contrex.explain import EXPLAINERS, Captum, Explanation
from contrex.explain.picture import SHOWN
from contrex.explain.words import in_words, question
from contrex.models.classes import checked_names
from contrex.ops.colour import overlaid_rgb
from contrex.settings.explainer import read_explainer
from explain.networks import images, network
from sampling import sampled

NAMES = ("tabby", "tiger cat", "lynx", "fox")


@pytest.fixture
def explain():
    return contrex.GradCAM(network("mlp"), names=NAMES)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_a_call_is_kept_with_what_it_explains(explain):
    why = explain(images(3), target=["lynx", "fox", "lynx"], contrast="tabby", score="probability")
    assert why.target.tolist() == [2, 3, 2]
    assert (why.explainer, why.score, why.task, why.names) == ("grad_cam", "probability", "multiclass", NAMES)
    assert (why.layer, why.grid, why.place) == (explain.layer, explain.grid, explain.place)
    assert why.foils.tolist() == [[0]] * 3
    assert why.positive().resize(9).place == why.place


def test_names_ask_what_indices_ask(explain):
    x = images(2)
    for by_name, by_index in (
        ({"target": "Tiger cat"}, {"target": 1}),
        ({"target": ["lynx", "tabby"], "contrast": "fox"}, {"target": [2, 0], "contrast": 3}),
        ({"target": "lynx", "contrast": [["fox", "tabby"]]}, {"target": 2, "contrast": [[3, 0]]}),
        ({"target": "lynx", "contrast": "max"}, {"target": 2, "contrast": "max"}),
    ):
        assert torch.equal(explain(x, **by_name).heatmap, contrex.GradCAM(explain.model)(x, **by_index).heatmap)
    named = explain.classes(x, classes=["fox", "tabby"])
    assert torch.equal(named.heatmap, explain.classes(x, classes=[3, 0]).heatmap)


def test_a_wrong_name_is_told_the_near_ones(explain):
    with pytest.raises(UnknownNameError, match=r"`target` must be one of .*; got 'cat'. Did you mean 'tiger cat'\?"):
        explain(images(1), target="cat")
    with pytest.raises(UnknownNameError, match=r"`contrast` must be one of .*; got 'links'"):
        explain(images(1), contrast="links")
    with pytest.raises(
        ArgumentError, match="`target` 'tabby' is a name, and the explainer knows none: pass it `names=`"
    ):
        contrex.GradCAM(network("mlp"))(images(1), target="tabby")
    many = [f"{letter}{end}" for letter in "bcfhmprsv" for end in ("ate", "atch", "ater")]
    with pytest.raises(UnknownNameError, match=r"one of 31 names; got 'CAT'. Near it: tabby cat, Egyptian cat\."):
        contrex.models.class_index("CAT", [*many, "tabby, tabby cat", "Egyptian cat"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "dog"), "`names` must be one for each of the model's 4 classes, got 2"),
        ("cats", "`names` must be a list of names, or 'imagenet'; got 'cats'"),
        ({1: "cat"}, r"`names` must have each class from 0 to 0, got \[1\]"),
        ((1, 2, 3, 4), "`names` must be texts, got 1"),
    ],
)
def test_names_are_one_text_for_each_class(names, message):
    with pytest.raises(ArgumentError, match=message):
        contrex.GradCAM(network("mlp"), names=names)(images(1))


def test_a_mapping_and_imagenet_are_names():
    assert contrex.Gradient(network("mlp"), names={1: "b", 0: "a", 2: "c", 3: "d"}).names == ("a", "b", "c", "d")
    assert checked_names("imagenet")[281] == "tabby"


def test_images_can_be_taken_out_one_by_one(explain):
    x = images(3)
    foils = torch.tensor([[1, 2], [2, 3], [3, 1]])
    for contrast in (None, "weighted", 3, [3, 1, 3], foils, [[2, 3]]):
        why = explain(x, target=0, contrast=contrast).on(x)
        parts = [why[0], why[-2], *list(why)[2:]]
        again = Explanation.cat(parts)
        assert [len(part) for part in parts] == [1, 1, 1] == [len(part.images) for part in parts]
        assert torch.equal(again.heatmap, why.heatmap)
        assert [said.question for said in in_words(again)] == [said.question for said in in_words(why)]
        assert [in_words(part)[0] for part in why] == in_words(why)
        assert again.place == why.place
        assert len(why[1:]) == 2
    with pytest.raises(IndexError):
        why[3]


def test_explanations_that_ask_something_else_are_not_joined(explain):
    x = images(1)
    plain, weighted, by_probability, foil, two = (
        explain(x, target=0, **asked)
        for asked in ({}, {"contrast": "weighted"}, {"score": "probability"}, {"contrast": 1}, {"contrast": [[1, 2]]})
    )
    for parts, message in (
        ([plain, weighted], "`parts` must have one kind of contrast"),
        ([weighted, foil], "`parts` must have one kind of contrast"),
        ([plain, by_probability], "`parts` must be explanations of one score"),
        ([foil, two], "`parts` must have the same number of foils"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Explanation.cat(parts)


def test_one_line_says_what_is_explained(explain):
    x = images(3)
    one, many = explain(x[:1], target="lynx", contrast="fox"), explain(x, contrast="weighted")
    share = round(100 * float(one.probability))
    assert repr(one).startswith(f"Explanation(why lynx rather than fox? lynx {share}%, fox ")
    assert repr(one).endswith(f"; grad_cam at {explain.place})")
    assert repr(many).startswith("Explanation(3 images: ")
    assert "and not the others (weighted)" in repr(many)
    assert "class 2" in repr(contrex.GradCAM(explain.model)(x[:1], target=2))
    several = explain.classes(x, k=2)
    assert repr(several).startswith("ClassExplanations(3 images, 2 classes each: ")
    assert all("\n" not in line for line in map(repr, (one, many, several, several[0])))
    assert repr(Explanation(torch.ones(1, 2, 2), torch.zeros(1, 3), torch.tensor([1]))) == (
        "Explanation(why class 1? class 1 33%, class 0 33%)"
    )


def test_a_line_says_what_the_network_does_not_see():
    logits = torch.tensor([[9.0, 0.0, -1.0, -2.0]])

    def note(target, contrast=None):
        return in_words(Explanation(torch.ones(1, 2, 2), logits, torch.tensor([target]), contrast=contrast))[0].note

    assert note(0) == ""
    assert note(0, 1) == "the network does not see class 1"
    assert note(2) == "the network does not see class 2"
    assert note(2, 1) == "the network sees neither"
    assert note(2, [[1, 3]]) == "the network sees none of them"


def test_many_foils_are_counted():
    assert question(NAMES, 0, [1, 2, 3]) == "why tabby rather than tiger cat, lynx or fox?"
    assert question((), 0, [1, 2, 3, 4]) == "why class 0 rather than class 1, class 2 or 2 others?"


def test_classes_and_their_pairs_know_what_they_are(explain):
    x = images(2)
    several = explain.classes(x, classes=["lynx", "fox"], contrast="weighted").on(x)
    first, plain = several.explanation(1), explain.classes(x, classes=["lynx", "fox"]).on(x)
    pair = plain.pair(0, 1)
    assert [said.question for said in in_words(first)] == ["why fox and not the others (weighted)?"] * 2
    assert [said.question for said in in_words(pair)] == ["why lynx rather than fox?"] * 2
    assert (first.explainer, first.place, first.images) == ("grad_cam", explain.place, several.images)
    assert torch.equal(pair[1].heatmap[0], plain.pairs()[1, 0, 1])
    for name, ask in (
        ("pair", lambda: several.pair(0, 1)),
        ("pairs", several.pairs),
        ("weighted", several.weighted),
    ):
        with pytest.raises(ArgumentError, match=rf"`{name}` takes maps of classes .* contrasts already \('weighted'\)"):
            ask()
    assert torch.equal(several[1].heatmap, several.heatmap[1:])
    assert (several[1].contrast, several[1].threshold) == ("weighted", 0.5)


def test_layers_are_kept_with_their_own_grids(explain):
    names = [name for name, module in explain.model.named_modules() if isinstance(module, nn.Conv2d)]
    for name, why in explain.layers(images(1), names).items():
        assert (why.layer, why.grid) == (name, tuple(why.heatmap.shape[1:]))


OPTIONS = {"layer", "contrast_layer"}


@pytest.mark.parametrize("kind", EXPLAINERS.values(), ids=EXPLAINERS)
def test_an_explainer_tells_all_its_options(kind):
    from contrex.explain.options import default_options

    options = {name: value for name, value in default_options(kind).items() if name not in OPTIONS}
    made = kind(network("mlp"))
    fused = {} if kind.default_fuse is None else {"fuse": kind.default_fuse}
    assert made.configured == (kind.name, options | fused)
    others = {"steps": 3, "num_samples": 4, "num_masks": 5, "window": 3, "start": "one", "batch_size": 2}
    given = {name: value for name, value in others.items() if name in options}
    text, _ = kind(network("mlp"), **given).configured
    assert read_explainer(text).name == kind.name
    assert read_explainer(text).options.keys() == given.keys()


def test_options_that_no_text_can_hold_are_told_in_words():
    made = contrex.IntegratedGradients(network("mlp"), baseline=torch.zeros(3), steps=4)
    assert made.configured[0] == "integrated_gradients(steps=4, baseline=[0.0, 0.0, 0.0])"
    large = contrex.IntegratedGradients(network("mlp"), baseline=torch.zeros(3, 8, 12))
    assert large.configured[0] == "integrated_gradients(baseline='tensor [3, 8, 12]')"
    pytest.importorskip("captum")
    assert Captum(network("mlp"), "Saliency").configured == ("captum:Saliency", {"seed": 0})
    made = Captum(network("mlp"), "IntegratedGradients", n_steps=4, seed=1, names=NAMES)
    assert made.configured[0] == "captum:IntegratedGradients(n_steps=4, seed=1)"
    assert made(images(1)).names == NAMES


def test_a_class_of_ones_own_is_told_by_its_name():
    class MyCAM(contrex.ActivationExplainer):
        def __init__(self, model, *, power=2):
            super().__init__(model, names=NAMES)
            self._power = power

        def combine(self, activation, gradient):
            return (activation * gradient).sum(1) ** self._power

    why = MyCAM(network("mlp"), power=3)(images(1))
    assert (why.explainer, why.options, why.names) == ("MyCAM(power=3)", {"power": 3}, NAMES)


def test_overlays_have_the_size_of_the_images(explain):
    x = images(2)
    why = explain(x).on(x)
    shown = why.overlay()
    assert [picture.size for picture in shown] == [(12, 8)] * 2
    assert why[0].overlay().size == (12, 8)
    assert len(explain.classes(x, k=3).on(x).overlay()) == 6
    assert max(explain(x)[0].overlay().size) == 256
    np.testing.assert_array_equal(np.asarray(why[1].overlay()), np.asarray(shown[1]))


def test_the_object_is_seen_under_the_map():
    """Light and dark differ by a fifth of the range under the fullest colours, and red stays red."""
    picture = np.zeros((2, 2, 3)) + np.array([[[0.1], [0.9]]])
    for sign, strong in ((1, 0), (-1, 2)):
        rgb = overlaid_rgb(picture, np.full((2, 2), sign * 1.0), 1.0).astype(int)
        assert (rgb[0, 1] - rgb[0, 0]).max() > 50
        assert (rgb[..., strong] > rgb[..., 2 - strong] + 30).all()
    grey = overlaid_rgb(picture, np.zeros((2, 2)), 1.0).astype(int)
    assert np.ptp(grey, axis=-1).max() <= 3
    np.testing.assert_array_equal(overlaid_rgb(picture, np.zeros((2, 2)), 0.0), grey)


def test_a_notebook_gets_a_picture(explain):
    x = images(2)
    for why in (explain(x[:1]), explain(x, contrast="weighted").on(x), explain.classes(x, k=2).on(x)):
        picture = opened(why._repr_png_())
        assert picture.width > 100
        assert picture.mode == "RGB"
    many = explain(x.repeat(10, 1, 1, 1)).on(x.repeat(10, 1, 1, 1))
    few = many[:SHOWN]
    assert opened(many._repr_png_()).height == opened(few._repr_png_()).height
    broken = Explanation(torch.full((1, 2, 2), torch.nan), torch.zeros(1, 3), torch.tensor([0]))
    assert broken._repr_png_() is None
    with pytest.raises(ArgumentError, match="`heatmap` must be finite to be drawn"):
        broken.overlay()


@sampled(one_in=2)
@pytest.mark.parametrize("name", ["a name " * 30, "word" * 60, "größe\nἀ\x1b[2J", ""])
def test_names_of_any_length_are_drawn(name):
    why = Explanation(torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.tensor([0]), names=(name, "b"))
    assert opened(why._repr_png_()).width < 900


def test_files_of_each_format(explain, tmp_path):
    x = images(2)
    why = explain(x, target="lynx", contrast=[3, 1]).on(x)
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")):
        why.save(tmp_path / "new" / f"why{suffix}")
        with Image.open(tmp_path / "new" / f"why{suffix}") as picture:
            assert picture.format == kind
    for suffix, head in ((".pdf", b"%PDF"), (".svg", b"<?xml")):
        why.save(tmp_path / f"why{suffix}")
        assert (tmp_path / f"why{suffix}").read_bytes().startswith(head)
    why.save(str(tmp_path / "why.npz"))
    with np.load(tmp_path / "why.npz") as arrays:
        np.testing.assert_array_equal(arrays["heatmap"], why.heatmap.numpy())
        assert json.loads(str(arrays["about"]))["layer"] == why.layer
    with pytest.raises(ArgumentError, match=r"`path` .*why.gif' must end in .json, .npz, or a picture's .png"):
        why.save(tmp_path / "why.gif")


def test_json_tells_everything_to_the_last_bit(tmp_path):
    x = images(2).float()
    explain = contrex.SmoothGrad(network("mlp").float(), num_samples=3, names=NAMES)
    why = explain(x, target="lynx", contrast=[3, 1]).on(x)
    why.save(tmp_path / "why.json")
    told = json.loads((tmp_path / "why.json").read_text())
    assert told["explainer"] == "smooth_grad(num_samples=3)"
    assert told["options"] == {"num_samples": 3, "noise": 0.15, "seed": 0, "batch_size": None}
    assert (told["layer"], told["grid"], told["score"], told["task"]) == (None, None, "logit", "multiclass")
    assert told["versions"] == {"contrex": contrex.__version__, "torch": torch.__version__}
    (first,), (second,) = told["questions"]
    assert (first["question"], first["target"]["index"]) == ("why lynx rather than fox?", 2)
    assert [foil["name"] for foil in second["foils"]] == ["tiger cat"]
    assert first["target"]["probability"] == pytest.approx(float(why.probability[0]))
    assert [one["name"] for one in told["classes"][0]] == [
        NAMES[index] for index in why.logits[0].sort(descending=True).indices
    ]
    assert told["images"][0]["sha256"] == hashlib.sha256(why.images[0].pixels.tobytes()).hexdigest()
    assert torch.equal(torch.tensor(told["heatmap"]), why.heatmap)
    explain.classes(x, k=2).save(tmp_path / "classes.json")
    assert len(json.loads((tmp_path / "classes.json").read_text())["questions"][1]) == 2


def test_a_figure_has_the_titles_of_the_command_line(explain):
    x = images(1)
    figure = explain(x, target="lynx", contrast="fox").on(x).show()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0].startswith("lynx ")
    assert titles[1].startswith("why lynx rather than fox?\n")
    with pytest.raises(ArgumentError, match=r"`images` must be \[1,C,H,W\], one per map; got NoneType"):
        explain(x).show()


def test_nothing_is_kept_of_the_images(explain):
    import weakref

    x = images(1)
    seen = weakref.ref(x)
    why = explain(x)
    del x
    assert seen() is None
    assert why.images == ()
