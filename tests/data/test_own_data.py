"""A data set of one's own, in one file: looked at, trained on, evaluated, reproduced with, written into records."""

import importlib.metadata
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import contrex
from contrex.cli import main
from contrex.data import image_set
from contrex.data.named import data_named
from contrex.errors import ArgumentError, UnknownNameError
from contrex.outside import installed, outside
from contrex.recipes.tables import tables_named
from contrex.records import from_plain, read_run, to_plain
from contrex.reproduce import Order, ordered
from contrex.settings import Data, Detection, Digits

FILE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "photos_by_name.py"
NAME = f"{FILE}:PhotosByName"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark ants and bright bees; one of them has a box."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, num in (("train", 8), ("val", 2), ("test", 3)):
        (root / split).mkdir()
        for number in range(num):
            for name, base in (("ant", 0), ("bee", 128)):
                values = base + random.integers(0, 128, (20, 24, 3))
                Image.fromarray(values.astype(np.uint8)).save(root / split / f"{name}-{number}.png")
    (root / "test/ant-0.txt").write_text("2 3 20 15\n4 4 6 6\n")
    return root


def test_its_images(photos):
    data = data_named(f"{NAME}:{photos}")
    images = image_set(data, "test")
    assert (type(data), data.path, data.location) == (outside(NAME, "it"), photos, photos)
    assert (images.classes, images.name, [sample.label for sample in images]) == (
        ["ant", "bee"],
        f"{photos.name}/test",
        [0, 0, 0, 1, 1, 1],
    )
    assert images[0].boxes.tolist() == [[2, 3, 20, 15], [4, 4, 6, 6]]
    assert len(images[1].boxes) == 0
    assert len(image_set(type(data)(photos, limit_per_class=1), "test")) == 2


def test_it_is_written_and_read_again(photos):
    data = data_named(f"{NAME}:{photos}")
    plain = json.loads(json.dumps(to_plain(data)))
    assert plain["kind"] == NAME
    assert from_plain(plain, Data) == pickle.loads(pickle.dumps(data)) == data
    assert data_named(data.command_name) == data


def test_workers_that_are_not_forked_read_it(photos):
    """Loader processes on other systems share nothing with the command but what is pickled."""
    images = image_set(data_named(f"{NAME}:{photos}"), "test")
    code = "import pickle, sys; images = pickle.load(sys.stdin.buffer); print(images[0].boxes.shape, images.classes)"
    path = {**os.environ, "PYTHONPATH": str(Path(contrex.__file__).parents[1])}
    pickled = pickle.dumps(images)
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True, env=path)
    assert done.stdout.decode().strip() == "(2, 4) ['ant', 'bee']"


SMALL = ("--data.image-size", 16, "--data.resize", 18, "--training.batch-size", 8, "--training.epochs", 1)
MODEL = ("--model.name", "contrex:convnet", "--model.options", "widths", "(4, 6)", "strides", "(2, 2)")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_commands_take_it(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(FILE.parent)
    name, folder = f"{FILE.name}:PhotosByName:{photos}", tmp_path / "run"
    assert run("data", name, "--output", tmp_path / "sheet.png") == 0
    assert "boxes: 2 on 1 of 6 images" in capsys.readouterr().out
    options = ("--training.device", "cpu", "--evaluation.metrics", "top1", "--evaluation.num-bootstrap", 9)
    assert run("train", "digits_cross_entropy", "--data", name, *SMALL, *MODEL, *options, "--folder", folder) == 0
    record = read_run(folder / "evaluation-test").record
    assert (record.dataset["num_images"], record.classes) == (6, ["ant", "bee"])
    assert json.loads((folder / "recipe.json").read_text())["data"]["kind"].endswith(f"{FILE.name}:PhotosByName")
    judged = ("--metrics", "content_heatmap", "--gallery", 0, "--num-bootstrap", 9)
    own, other = tmp_path / "own", tmp_path / "other"
    assert run("evaluate", folder, *judged, "--output", own) == 0
    assert run("evaluate", folder, "--data", name, *SMALL[:4], *judged, "--output", other) == 0
    assert [read_run(one).record.metric("content_heatmap").num_counted for one in (own, other)] == [1, 1]


def test_papers_are_reproduced_with_it(photos):
    data = data_named(f"{NAME}:{photos}")
    tiny = ordered(Order(tables_named(("cgc-table5",), ()), scale="tiny", data=(data,)))
    assert all(work.recipe.data.path == photos for work in tiny.works)
    assert all(type(work.recipe.data) is type(data) for work in tiny.works)


def test_an_installed_package_adds_a_name(photos, monkeypatch):
    point = importlib.metadata.EntryPoint("named-photos", NAME, "contrex.data")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    installed.cache_clear()
    try:
        assert data_named(f"named-photos:{photos}") == data_named(f"{NAME}:{photos}")
        with pytest.raises(ArgumentError, match="'named-photos' needs a path behind it: named-photos:PATH"):
            data_named("named-photos")
        with pytest.raises(UnknownNameError, match=r"got 'named-fotos'. Did you mean 'named-photos'"):
            data_named("named-fotos:x")
    finally:
        installed.cache_clear()


def test_what_is_wrong_with_a_name_is_said(tmp_path, monkeypatch):
    with pytest.raises(
        ArgumentError, match=r"PhotosByName' needs a path behind it: .*photos_by_name.py:PhotosByName:PATH"
    ):
        data_named(NAME)
    with pytest.raises(ArgumentError, match=r"--data .*:PhotosByNameImages must be a class that derives from contrex"):
        data_named(f"{FILE}:PhotosByNameImages:x")
    with pytest.raises(ArgumentError, match=r"'nowhere.py:Mine' cannot be loaded from nowhere.py"):
        data_named("nowhere.py:Mine")
    (tmp_path / "mine.py").write_text("from contrex.settings import Data\nclass Mine(Data): pass")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"`Mine.implementation` must name a subclass of contrex.data.ImageSet"):
        image_set(data_named("mine.py:Mine"), "train")
    with pytest.raises(ArgumentError, match=r"Mine has no path, got 'mine.py:Mine:x': name it `mine.py:Mine`"):
        data_named("mine.py:Mine:x")
    assert isinstance(data_named("contrex.settings:Digits"), Digits)


@pytest.mark.parametrize("name", ["digits", "cub:some/where", "coco:x"])
def test_a_data_set_says_its_name(name):
    assert data_named(name).command_name == name
    assert Detection(Path("x")).command_name == "x"
