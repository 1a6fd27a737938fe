"""`contrex explore`, and the page of `contrex explain --page`."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.cli import main
from contrex.models import build_network
from contrex.serving.server import Server

NAMES = ("cat", "dog", "fox")


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two photos, one file that is none, and two weights files of one network."""
    root = tmp_path_factory.mktemp("explored")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "photos" / name)
    (root / "photos" / "broken.jpg").write_bytes(b"no photo")
    for seed, num in enumerate((3, 3, 4)):
        torch.manual_seed(seed)
        torch.save(build_network("contrex:convnet", {}, num_classes=num).state_dict(), root / f"{seed}.pth")
    return root


def words(made, *more):
    return ["--model", "contrex:convnet", "--model.weights", made / "0.pth", "--side", "32", *more]


def content(page):
    """What the page's script reads: of all, and photo by photo."""
    told = dict(re.findall(r'json" id="([\w-]+)">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL))
    shown = json.loads(told.pop("content"))
    return {**shown, "of": [json.loads(told[f"photo-{index}"]) for index in range(len(told))]}


def test_explain_writes_a_page_beside_the_pictures(made, tmp_path, capsys):
    asked = ["--classes", *NAMES, "--target", "dog", "--contrast", "fox", "--layer", "features"]
    page = tmp_path / "why.html"
    assert run("explain", made / "photos", *words(made, *asked), "--output", tmp_path / "e.png", "--page", page) == 2
    assert f"page: {page}" in capsys.readouterr().out
    shown = content(page)
    assert shown["photos"] == ["a.png", "b.png"]
    assert shown["start"] == {"target": 1, "contrast": [2]}
    assert shown["methods"] == ["grad_cam(layer='features')"]
    assert shown["of"][0]["records"][0]["photo"]["sha256"]
    assert len(shown["views"]) == len(shown["of"][1]["answers"]) == 5
    command = shown["models"][0]["command"]
    assert f"--model.weights {made}/0.pth --classes cat dog fox --side 32" in command


def test_models_stand_side_by_side(made, tmp_path, capsys):
    page = tmp_path / "two.html"
    more = [
        "--beside",
        made / "1.pth",
        "--explainer",
        "grad_cam",
        "gradient",
        "--layer",
        "features",
        "--contrast",
        "mean",
    ]
    assert run("explore", made / "photos" / "a.png", *words(made, *more), "--output", page) == 0
    assert capsys.readouterr().out == f"page: {page}\n"
    shown = content(page)
    assert [one["name"] for one in shown["models"]] == ["0", "1"]
    assert shown["methods"] == ["grad_cam(layer='features')", "gradient"]
    assert [len(one["tables"]) for one in shown["of"][0]["answers"][3]] == [2, 2]
    assert shown["start"] == {"target": None, "contrast": "mean"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "name one photo or more: contrex explore RUN ... PHOTO ..."),
        (["{}/photos/a.png"], "name a trained run's folder, or a network: --model NAME --pretrained"),
        (["{}/photos/a.png", "--beside", "{}/1.pth"], "--beside has more weights of --model: give it its own too"),
        (
            ["{}/photos/a.png", "--model.weights", "{}/0.pth", "--output", "x.pdf"],
            "x.pdf has no page format: end it in",
        ),
        (["{}/photos/a.png", "--model.weights", "{}/0.pth", "--side", "0"], "`side` must be at least 1 pixel, got 0"),
        (["{}/photos/broken.jpg", "--model.weights", "{}/0.pth"], "cannot read image"),
        (
            ["{}/photos/a.png", "--model.weights", "{}/0.pth", "--beside", "{}/2.pth"],
            "side by side are classifiers of the same classes, got [3, 4] of them",
        ),
        (["{}/photos/a.png", "--model.weights", "{}/0.pth", "--contrast", "wolf"], "`contrast`"),
    ],
)
def test_what_cannot_be_explored_is_refused(made, given, message, capsys):
    name = ["--model", "contrex:convnet"] if "--model.weights" in given else []
    assert run("explore", *(word.format(made) for word in given), *name) == 2
    assert message in capsys.readouterr().err


def test_a_page_must_be_html(made, capsys):
    assert run("explain", made / "photos" / "a.png", *words(made), "--page", "why.png") == 2
    assert "`page` why.png has no page format: end it in one of .html, .htm." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "kind", "share"),
    [
        (["--contrast", "weighted(strength=0.25)"], "weighted", 0.25),
        (["--contrast", "nearest(k=1, alpha=0.5)"], [0], 0.5),
        (["--expected", "dog"], [1], None),
    ],
)
def test_a_page_opens_with_the_share_of_a_contrast_with_the_nearest_and_with_the_expected_class(
    made, tmp_path, asked, kind, share
):
    page = tmp_path / "why.html"
    photo, more = made / "photos" / "a.png", words(made, "--classes", *NAMES, *asked)
    assert run("explain", photo, *more, "--output", tmp_path / "e.png", "--page", page) == 0
    start = content(page)["start"]
    assert (start["contrast"], start.get("share")) == (kind, share)


def test_a_page_is_served_and_nothing_is_written(made, tmp_path, monkeypatch, capsys):
    ran = []

    def at_once(server):
        ran.append(server)

    monkeypatch.setattr(Server, "run", at_once)
    monkeypatch.chdir(tmp_path)
    assert run("explore", *words(made), "--serve") == 0
    assert run("explore", made / "photos", *words(made), "--serve", "--host", "0.0.0.0") == 0
    said = capsys.readouterr()
    for server, address in zip(ran, re.findall(r"^explorer: (.*)$", said.out, re.MULTILINE), strict=True):
        assert address == server.address
        assert re.fullmatch(r"http://[\d.]+:\d+/\?token=[\w-]{43,}", address)
    assert [server.is_local for server in ran] == [True, False]
    assert said.err.count("whoever reaches 0.0.0.0 and has the address can use the models") == 1
    assert "broken.jpg" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--port", "8000"], "`host` and `port` are those of --serve: add it, or leave them out."),
        (["--host", "0.0.0.0"], "`host` and `port` are those of --serve: add it, or leave them out."),
        (["--serve", "--output", "x.html"], "`output` x.html is not written with --serve: leave one of them out."),
        (["--serve", "--port", "70000"], "`port` must be from 0, any free one, to 65535, got 70000."),
    ],
)
def test_what_cannot_be_served_is_refused(made, given, message, capsys):
    assert run("explore", made / "photos" / "a.png", *words(made, *given)) == 2
    assert message in capsys.readouterr().err


def test_serving_needs_an_extra(made, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    assert run("explore", *words(made), "--serve") == 2
    assert "`serve` needs uvicorn: pip install 'contrex[serve]'." in capsys.readouterr().err
