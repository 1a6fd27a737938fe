"""Names, options and files that come from elsewhere: none of them is executed, downloaded, or steers the terminal."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from contrex.cli import main
from contrex.errors import ArgumentError, UnknownNameError, WeightsError
from contrex.explain.figure import Panel, Row, draw
from contrex.models import build_network, load_classifier
from contrex.records import read_run, write_json
from contrex.settings import CrossEntropy, Evaluation, Folder, Model, Recipe, Training

CLASSES = ("<script>alert(1)<\u2215script>", "\x1b[2J{{ 7 * 7 }}", os.fsdecode(b"$\\frac{\xff"))
FILES = ("1.png", "\x1b]0;title\x07.png", os.fsdecode(b"\xfe\xff.png"), "é" * 125 + ".png", "\u202egnp.png")


# --- what a name may not do -----------------------------------------------------------------------------------------


def test_options_of_a_network_are_literals_and_not_evaluated(tmp_path):
    marker = tmp_path / "executed"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    with pytest.raises(ArgumentError, match=r"`model.options` .* do not fit contrex:convnet"):
        build_network("contrex:convnet", {"pointwise": code})
    with pytest.raises(ArgumentError, match=r"`model.options` .* do not fit contrex:convnet"):
        build_network("contrex:convnet", {"pointwise": "-" * 100_000 + "1"})
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "timm:hf-hub:someone/something",
        "timm:hf_hub:someone/something",
        "timm:local-dir:/tmp",
        "torchvision:os.system",
        "torchvision:__class__",
        "contrex:convnet.__init__",
        "os:system",
        "timm:../../../etc/passwd",
        "/tmp/network.py:Network",
    ],
)
def test_a_name_that_is_no_architecture_is_looked_up_nowhere(name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(UnknownNameError, match=r"`model.name`"):
        build_network(name, {})


def no_network(*_):
    raise AssertionError("a connection was opened")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:test_resnet", {"pretrained": "True"}),
        ("torchvision:squeezenet1_1", {"weights": "DEFAULT"}),
        ("torchvision:squeezenet1_1", {"pretrained": "True"}),
    ],
)
def test_weights_are_never_downloaded(name, options, monkeypatch):
    """Not even where the builder's own options ask for it."""
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(ArgumentError, match=r"`model.options` .* do not fit"):
        build_network(name, options)
    assert build_network(name, {}) is not None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_of_weights_that_is_cut_short_is_refused(tmp_path, suffix, share):
    weights, file = load_classifier(Model("contrex:convnet")).network.state_dict(), tmp_path / f"weights{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match=rf"weights{suffix}.* cannot be read as tensors only"):
        load_classifier(Model("contrex:convnet", weights=file))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
def test_a_file_of_weights_is_data(tmp_path, suffix):
    marker, file = tmp_path / "executed", tmp_path / f"weights{suffix}"
    file.write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    with pytest.raises(WeightsError, match="cannot be read as tensors only"):
        load_classifier(Model("contrex:convnet", weights=file))
    assert not marker.exists()


# --- what a name may not show ---------------------------------------------------------------------------------------


def test_messages_do_not_steer_the_terminal(tmp_path, capsys):
    for words in (["report", f"{tmp_path}/\x1b[2J"], ["evaluate", f"{tmp_path}/\u202e\udcff"], ["\x1b[31m"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.rstrip("\n").isprintable()
        assert r"\x1b" in said or r"\u202e" in said


def test_titles_of_figures_are_no_formulas():
    panel = Panel(np_heatmap(), CLASSES[2])
    figure = draw([Row(np.zeros((8, 8, 3), np.float32), [panel], FILES[2])])
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == r"\udcfe\udcff.png"
    assert titles[1].startswith(r"$\frac{\udcff")


def np_heatmap():
    return torch.ones(2, 2)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of pictures with names as they come, trained on and measured through the real command."""
    root, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            folder = root / "photos" / split / name
            folder.mkdir(parents=True)
            for file in FILES:
                Image.fromarray(rng.integers(0, 100 + label, (16, 16, 3), dtype=np.uint8)).save(folder / file)
            (folder / f"bad{FILES[1]}").write_bytes(b"no image")
            (folder / f"bad{FILES[2]}").touch()
    recipe = Recipe(
        name="odd",
        data=Folder(root / "photos", image_size=16, resize=16, on_bad_image="skip"),
        model=Model("contrex:convnet", options={"widths": "(4,)", "strides": "(2,)", "pointwise": "4"}),
        method=CrossEntropy(),
        training=Training(epochs=1, batch_size=5, device="cpu"),
        evaluation=Evaluation(metrics=("top1",), gallery=4, num_bootstrap=20, device="cpu"),
    )
    write_json(root / "recipe.json", recipe)
    write_json(root / "strict.json", replace(recipe, data=replace(recipe.data, on_bad_image="error")))
    return root


def test_odd_names_go_all_the_way_to_the_report(odd, capfd):
    assert main(["train", str(odd / "recipe.json"), "--folder", str(odd / "run")]) == 0
    assert main(["report", str(odd / "run" / "evaluation-val"), "--output", str(odd / "report.html")]) == 0
    said = "".join(capfd.readouterr())
    assert "\x1b[2J" not in said
    assert "\x1b]0" not in said
    listed = json.loads((odd / "run" / "skipped_images.json").read_text())
    assert [len(faults) for faults in listed.values()] == [6, 6]
    run = read_run(odd / "run" / "evaluation-val")
    assert tuple(run.record.classes) == tuple(sorted(CLASSES))
    assert len(run.samples) == 15
    page = (odd / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "{{ 7 * 7 }}" in page  # and not 49


def test_the_default_stops_with_the_path_and_runs_on_with_skip(odd, capfd):
    assert main(["train", str(odd / "strict.json"), "--folder", str(odd / "stopped"), "--no-evaluate"]) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "cannot read image" in said
    assert "/bad" in said
    assert "leave such files out: --data.on-bad-image skip" in said
    assert said.isprintable()


@pytest.mark.slow
def test_explaining_pictures_of_odd_names(odd, capfd):
    if not (odd / "run" / "recipe.json").is_file():
        assert main(["train", str(odd / "recipe.json"), "--folder", str(odd / "run"), "--no-evaluate"]) == 0
    photos = [str(odd / "photos" / "val" / name / file) for name, file in zip(CLASSES, FILES[1:4], strict=True)]
    words = ["explain", *photos, "--run", str(odd / "run"), "--top", "2", "--output", str(odd / "why.png")]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert len(list(odd.glob("why-*.png"))) == len(list(odd.glob("why-*.json"))) == 3
    assert all(line.isprintable() for line in said.splitlines())
    assert r"\x1b[2J{{ 7 * 7 }}" in said
