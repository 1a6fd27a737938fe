"""The explorer's page as a file: whole, closed, and nothing but text where names come from outside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import pickle
import re
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.errors import ArgumentError
from contrex.explain.explorer.content import View
from contrex.models import Classifier, build_network
from contrex.ops.explorer_page import LIVE_MODULES, MODULES

EVIL = "</script><script>alert(1)</script>"
NAMES = (EVIL, '"><img src=x onerror=alert(2)>', "<!--", "cat & dog, 'mouse'", "日本 {{script}}", "\u2028line")
ASSETS = resources.files("contrex.explain.explorer").joinpath("assets")


@pytest.fixture(scope="module")
def why():
    torch.manual_seed(0)
    network = build_network("contrex:convnet", {}, num_classes=len(NAMES)).eval()
    classifier = Classifier(network, (0.5,) * 3, (0.25,) * 3, image_size=32, names=NAMES)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return contrex.why(photo, classifier, contrast="weighted")


@pytest.fixture(scope="module")
def page(why):
    return why.explore()


def content(page):
    """What the script reads: of all, and photo by photo."""
    told = dict(re.findall(r'type="application/json" id="([\w-]+)">(.*?)</script>', page.html, re.DOTALL))
    shown = json.loads(told.pop("content"))
    return {**shown, "of": [json.loads(told[f"photo-{index}"]) for index in range(len(told))]}


def test_the_page_needs_nothing_and_lets_nothing_in(page):
    text = page.html
    assert len(text) < 300_000
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    ((style,), (script,)) = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script"))
    for kind, part in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert not re.findall(r"https?://|//[a-z]+\.|@import|url\(|\bfetch\(|XMLHttp|WebSocket|eval\(|innerHTML", text)
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]


def test_names_are_text_whatever_is_in_them(page):
    assert content(page)["names"] == list(NAMES)
    assert EVIL not in page.html
    assert "<img" not in page.html
    assert "<!--" not in page.html
    assert page.html.count("<script") == page.html.count("</script>") == 3


def test_numbers_are_within_a_thousandth_of_the_maps(why, page):
    table = content(page)["of"][0]["answers"][0][0]["tables"][0]
    whole = np.frombuffer(base64.b64decode(table["values"]), "<i2").reshape(len(NAMES), *table["shape"])
    factors = np.frombuffer(base64.b64decode(table["factors"]), "<f4")
    source = why.images[0].source
    seen = source.classifier.normalise(torch.from_numpy(why.images[0].pixels).permute(2, 0, 1)[None] / 255)
    expected = source.explainer.classes(seen, classes=range(len(NAMES))).heatmap[0].numpy()
    largest = np.abs(expected).max((1, 2), keepdims=True)
    assert (np.abs(whole * factors[:, None, None] - expected) < 1e-4 * largest).all()


def test_a_view_is_a_part_of_the_picture_in_its_size():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    assert View("whole").of(picture) is picture
    flipped = np.asarray(View("flipped", is_flipped=True).of(picture))
    np.testing.assert_array_equal(flipped, np.asarray(picture)[:, ::-1])
    part = View("part", 0.5, 0.0, 0.5, 1.0).of(picture, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(np.asarray(part)[:, ::2], np.asarray(picture)[:, 20:])


def test_notebooks_get_a_frame_that_may_run_its_script_only(page):
    (frame,) = re.findall(r"<iframe [^>]*>", page._repr_html_())
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page.html
    assert repr(page) == "ExplorerPage(1 picture; ConvNet)"


def test_the_page_opens_with_the_question_that_was_asked(why, page):
    assert content(page)["start"] == {"target": int(why.target), "contrast": "weighted"}
    rather = contrex.why(why.images[0].pixels, why.images[0].source.classifier, target=1, contrast=[[2, 3]])
    assert content(rather.explore())["start"] == {"target": 1, "contrast": [2, 3]}


def test_a_kept_explanation_has_no_network_in_it_and_takes_one_again(why, page):
    kept = pickle.loads(pickle.dumps(why))
    assert kept.images[0].source is None
    with pytest.raises(ArgumentError, match=r"pass the classifier, why.explore\(classifier\)"):
        kept.explore()
    again = content(kept.explore(why.images[0].source.classifier))
    assert again["of"][0]["answers"] == content(page)["of"][0]["answers"]


def test_several_classes_are_enough_without_the_network(why):
    classifier = why.images[0].source.classifier
    images = torch.randn(2, 3, 32, 32)
    several = contrex.GradCAM(classifier)(images), contrex.GradCAM(classifier).classes(images, k=3)
    with pytest.raises(ArgumentError, match=r"draws on pictures, and this explanation has none"):
        several[1].explore()
    shown = content(several[1].on(images).explore())
    assert [len(one["answers"]) for one in shown["of"]] == [len(shown["views"])] * 2 == [1, 1]
    table = shown["of"][1]["answers"][0][0]["tables"][0]
    assert table["classes"] == several[1].target[1].tolist()
    assert shown["models"][0]["python"] == ""


def test_a_page_is_written_to_an_html_file(page, tmp_path):
    assert page.save(tmp_path / "why.html").read_text(encoding="utf-8") == page.html
    with pytest.raises(ArgumentError, match=r"'.*why.txt' must end in .html"):
        page.save(tmp_path / "why.txt")


def test_modules_stand_behind_what_they_import():
    """They share one scope in the page: no name is given twice, and each is there before it is used."""
    known, names = {}, []
    for module in (*MODULES, *LIVE_MODULES):
        text = ASSETS.joinpath(f"{module}.js").read_text(encoding="utf-8")
        for imported, source in re.findall(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', text, re.MULTILINE):
            assert {name.strip() for name in imported.split(",")} <= known[source]
        known[module] = set(re.findall(r"^export (?:const|class) (\w+)", text, re.MULTILINE))
        names += re.findall(r"^(?:export )?(?:const|class|let) (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert {path.name for path in ASSETS.iterdir()} == {
        "explorer.css", "explorer.html", "live.css", "live.html",
        *(f"{module}.js" for module in (*MODULES, *LIVE_MODULES)),
    }  # fmt: skip
