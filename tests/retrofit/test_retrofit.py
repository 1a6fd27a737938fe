"""The whole of a retrofit on a small network: what drops into the place of the old weights, and what is refused."""

import copy
import io
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from contrex.cli import main
from contrex.data import image_set
from contrex.data.views.squares import central_square, pixels
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import validate, validation_groups
from contrex.evaluation.validation import best_scale
from contrex.methods import training_plan
from contrex.models import load_classifier
from contrex.records import Gallery, RunRecord, read_run
from contrex.retrofit import Order, retrofit
from contrex.retrofit.kept_out import KeptOut
from contrex.retrofit.order import among, first_below, with_photos
from contrex.retrofit.run import largest_changes, original_of_run, write_weights
from contrex.settings import Augmentation, Evaluation, Folder, Model, Optimizer, Recipe, Retrofit, Training
from contrex.training import load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.state import Place
from contrex.training.stopping import interrupted
from training.runs import quiet, tiny, varied
from training.test_retrofit_runs import photos

NETWORK = Model("contrex:convnet", {"widths": "(4, 6)", "strides": "(2, 2)"}, num_classes=10)


@pytest.fixture(scope="module")
def order(tmp_path_factory) -> Order:
    """A network of ten classes that is sure of what it says, and photos in two folders."""
    folder = tmp_path_factory.mktemp("retrofit")
    data = photos(folder / "photos", num=24)
    torch.manual_seed(7)
    classifier = load_classifier(NETWORK)
    network, images = (
        classifier.network,
        [central_square(one.image, resize=34, size=32) for one in image_set(data, "train")],
    )
    with torch.no_grad():
        logits = network.eval()(classifier.normalise(torch.stack([pixels(image) for image in images])))
        network.fc.weight *= 4 / logits.std(0)[:, None]  # many classes, most of them sure
        network.fc.bias.copy_((network.fc.bias - logits.mean(0)) * 4 / logits.std(0))
    torch.save(network.state_dict(), folder / "weights.pth")
    shutil.copytree(folder / "photos" / "below", folder / "more")
    for file in (folder / "more").rglob("*.png"):
        Image.open(file).save(file, compress_level=1)  # as files of their own, as copies would be left out
    recipe = Recipe(
        "retrofit",
        data,
        replace(NETWORK, weights=folder / "weights.pth"),
        Retrofit(resolution=32, tolerance=90.0),
        augmentation=Augmentation(scale=(0.4, 1.0)),
        optimizer=Optimizer("adamw", lr=1e-3, weight_decay=0.0),
        training=Training(epochs=2, batch_size=8, device="cpu", ema=0.5),
    )
    recipe = with_photos(recipe, (folder / "photos", folder / "more"), image_size=32, resize=34, val_share=0.25)
    return Order(recipe, offset=0.0)


@pytest.fixture(scope="module")
def done(order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    measured = replace(order, evaluate_on=tiny().data, evaluation=Evaluation(metrics=("top1", "spread"), split="test"))
    return retrofit(measured, folder, console=quiet()), folder


def test_the_weights_drop_into_the_place_of_the_old_ones(order, done):
    found, _ = done
    before, after = (torch.load(path, weights_only=True) for path in (order.recipe.model.weights, found.weights))
    assert found.weights.name == "weights.pth"
    assert list(before) == list(after)
    assert all(before[name].dtype == value.dtype and value.is_contiguous() for name, value in after.items())
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"features", "fc"}
    network = load_classifier(replace(order.recipe.model, weights=found.weights)).network
    assert all(torch.equal(value, after[name]) for name, value in network.state_dict().items())


def test_what_was_measured(order, done):
    found, folder = done
    before, after = found.kept_out
    assert [one.record.name for one in found.kept_out] == ["before", "after"]
    assert before.record.metric("agreement").value == before.record.metric("sure_agreement").value == 100
    groups = validation_groups(image_set(order.photos, "val"), order.photos)
    own, theirs = (load_classifier(replace(order.recipe.model, weights=w)) for w in (found.weights, None))
    theirs = load_classifier(order.recipe.model)
    expected = validate(own, groups, device=torch.device("cpu"), reference=theirs.network.eval())
    assert after.record.metric("agreement").value == pytest.approx(expected.top1)
    assert after.record.metric("sure_agreement").value == pytest.approx(expected.kept)
    assert after.record.metric("sure_agreement").num_counted == expected.num_sure > 0
    assert {"cgc_loss", "spread"} <= {one.name for one in after.record.metrics}
    assert before.samples.paths == after.samples.paths == [one.path for one in image_set(order.photos, "val")]
    assert [one.record.dataset["num_images"] for one in found.measured] == [12, 12]
    assert found.measured[0].record.metric("top1") is not None
    for page in (found.report, found.measured_report):
        assert "before" in page.read_text()
    assert read_run(folder / "after").samples == after.samples


@pytest.mark.slow
def test_a_rate_far_too_large_ends_with_the_original(order, tmp_path, capsys):
    """Also where it is continued: the run is over."""
    recipe = replace(order.recipe, optimizer=replace(order.recipe.optimizer, lr=30.0))
    found = retrofit(replace(order, recipe=recipe), tmp_path / "run", console=quiet())
    assert found.way == 0
    before, after = (torch.load(path, weights_only=True) for path in (recipe.model.weights, found.weights))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert found.kept_out[1].record.metric("agreement").value == 100
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = retrofit(replace(order, recipe=recipe), tmp_path / "run", console=quiet(), resume=True)
    assert again.way == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_it_goes_back_on_a_straight_line_as_far_as_it_takes(order, tmp_path):
    """A rate that is too large: what is left is the longest part of the way on which enough decisions stay."""
    recipe = replace(order.recipe, optimizer=replace(order.recipe.optimizer, lr=6e-3))
    train(recipe, tmp_path / "back", console=quiet())
    train(replace(recipe, method=replace(recipe.method, tolerance=None)), tmp_path / "all", console=quiet())
    (_, found, _), (_, last, _) = (load_trained(tmp_path / name) for name in ("back", "all"))
    first = load_classifier(recipe.model)
    way = Checkpoints(tmp_path / "back").load()["place"]["way"]
    assert 0 < way < 1
    groups = validation_groups(image_set(order.photos, "val"), order.photos)

    def kept(share):
        between = copy.deepcopy(first)
        mixed = {
            n: v.double().lerp(last.network.state_dict()[n].double(), share) if v.is_floating_point() else v
            for n, v in first.network.state_dict().items()
        }
        between.network.load_state_dict(mixed)
        reference = first.network.eval()
        return validate(between, groups, device=torch.device("cpu"), reference=reference).kept, mixed

    assert kept(1.0)[0] < 90
    assert kept(way + 1 / 16)[0] < 90
    stayed, expected = kept(way)
    assert stayed >= 90
    for name, value in found.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-6, atol=1e-7)
    lines = [line for line in read_log(tmp_path / "back") if "val_kept" in line]
    ways = [line.get("way", 1.0) for line in lines[1:]]
    assert ways == [1 - number / 16 for number in range(len(ways))]
    assert [line["val_kept"] >= 90 for line in lines[1:]] == [False] * (len(ways) - 1) + [True]
    assert Checkpoints(tmp_path / "back").finished() is not None


def test_tolerance_goes_with_photos_alone(order, tmp_path):
    labelled = replace(order.recipe, data=tiny().data)
    for options in ({}, {"tolerance": None, "rescale": True}):
        method = replace(labelled.method, **options)
        with pytest.raises(ArgumentError, match=r"`method.tolerance` and `method.rescale` are for photos without"):
            train(replace(labelled, method=method), tmp_path / "run", console=quiet())
        name = "rescale" if options else "tolerance"
        with pytest.raises(ArgumentError, match=rf"`method.{name}` changes the weights at the end .*`training.shard`"):
            training_plan(load_classifier(NETWORK), varied(replace(order.recipe, method=method), shard=True))


def test_probabilities_end_as_near_to_the_originals_as_one_number_brings_them(order, tmp_path):
    """Beside a run that keeps its scale: the last layer alone differs, by that number, and no decision does."""
    first, groups = load_classifier(order.recipe.model), validation_groups(image_set(order.photos, "val"), order.photos)
    options = {"weight": 4.0, "distillation_weight": 0.3}
    found = {}
    for rescale in (False, True):
        method = replace(order.recipe.method, **options, tolerance=None, rescale=rescale)
        folder = tmp_path / str(rescale)
        train(replace(order.recipe, method=method), folder, console=quiet())
        found[rescale] = load_trained(folder)[1]
    scale = Checkpoints(tmp_path / "True").load()["place"]["scale"]
    assert abs(scale - 1) > 0.01
    plain, scaled = (found[rescale].network.state_dict() for rescale in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value * scale if name.startswith("fc.") else value, rtol=1e-5, atol=0)
    views = [one for group in groups for one in group]
    images = first.normalise(torch.stack([one.square for one in views]))
    with torch.no_grad():
        theirs, own, after = (one.network.eval()(images).double() for one in (first, found[False], found[True]))
    assert torch.equal(own.argmax(1), after.argmax(1))

    def divergence(number):
        return float((theirs.softmax(1) * (theirs.log_softmax(1) - (number * own).log_softmax(1))).sum(1).mean())

    tried = [0.5 + number / 1000 for number in range(1501)]
    assert scale == pytest.approx(min(tried, key=divergence), abs=1e-3)
    lines = [line for line in read_log(tmp_path / "True") if "val_divergence" in line]
    assert lines[-1]["scale"] == scale
    assert lines[-1]["val_divergence"] == pytest.approx(divergence(scale), rel=1e-4)
    assert lines[-1]["val_divergence"] < lines[-2]["val_divergence"]
    assert lines[-1]["val_agreement"] == lines[-2]["val_agreement"]


def test_a_single_logit_has_no_better_scale(order):
    model = replace(NETWORK, num_classes=1)
    one, other = load_classifier(model), load_classifier(model)
    groups = validation_groups(image_set(order.photos, "val"), order.photos)
    assert best_scale(one, groups, device=torch.device("cpu"), reference=other.network.eval()) == 1


@pytest.mark.parametrize("trained", [("features",), ("last-stage",)])
def test_a_last_layer_that_is_not_trained_keeps_its_scale(order, tmp_path, trained):
    """Nor is there one to scale where a network ends otherwise."""
    recipe = replace(order.recipe, method=replace(order.recipe.method, trained=trained, tolerance=None, rescale=True))
    if trained == ("last-stage",):
        model = Model("torchvision:squeezenet1_1", num_classes=10, weights=tmp_path / "weights.pth")
        torch.save(load_classifier(replace(model, weights=None)).network.state_dict(), model.weights)
        recipe = replace(recipe, model=model)
    told = io.StringIO()
    train(varied(recipe, epochs=1), tmp_path / "run", console=Console(file=told, width=200))
    assert "logits keep their scale (`method.rescale`), as no linear layer" in told.getvalue()
    assert Checkpoints(tmp_path / "run").load()["place"]["scale"] == 1
    state = load_trained(tmp_path / "run")[1].network.state_dict()
    before = torch.load(recipe.model.weights, weights_only=True)
    assert trained != ("features",) or torch.equal(state["fc.weight"], before["fc.weight"])


def test_other_files_of_weights(order, tmp_path):
    """safetensors stay safetensors, half precision stays half, what a file lacks is not added."""
    state = torch.load(order.recipe.model.weights, weights_only=True)
    short = {f"module.{name}": value.half() for name, value in state.items() if "num_batches" not in name}
    save_file(short, tmp_path / "old.safetensors")
    model = replace(NETWORK, weights=tmp_path / "old.safetensors")
    written = write_weights(load_classifier(model), model, tmp_path / "weights.safetensors")
    assert written.name == "weights.safetensors"
    found = load_file(written)
    assert {f"module.{name}" for name in found} == set(short)
    assert all(value.dtype == torch.float16 for value in found.values())


def test_the_photos_shown_are_those_that_changed_most():
    def run(maps):
        images = [np.zeros((4, 4, 3), np.uint8)] * len(maps)
        numbers = list(range(len(maps)))
        gallery = Gallery(images, maps, [np.zeros((0, 4))] * len(maps), list("abc"), numbers, numbers, numbers)
        return RunRecord(None, None, gallery)

    one, two = np.eye(2, dtype=np.float32), np.ones((2, 2), np.float32)
    runs = largest_changes([run([one, one, one]), run([one, one[::-1], two])], 2)
    assert [run.gallery.paths for run in runs] == [["b", "c"]] * 2
    assert np.array_equal(runs[1].gallery.heatmaps[1], two)
    (shown,) = [run.gallery.paths for run in largest_changes([run([one] * 3), run([two, one, -one])], 2)][:1]
    assert shown == ["c", "a"], "one that has vanished has changed most"


def test_what_is_refused_before_the_work(order, tmp_path):
    recipe = order.recipe
    with pytest.raises(ArgumentError, match=r"`model.weights` is needed: a retrofit keeps"):
        Order(replace(recipe, model=NETWORK)).check()
    with pytest.raises(ArgumentError, match=r"`model.fresh` fc begins at random weights, .*: train it first"):
        Order(replace(recipe, model=replace(recipe.model, fresh=("fc",)))).check()
    with pytest.raises(ArgumentError, match=r"`training.batch_size` 64 is larger than the 27 photos that are not kept"):
        Order(replace(recipe, training=Training(batch_size=64))).check()
    with pytest.raises(ArgumentError, match="`images` names no folder"):
        with_photos(recipe, ())
    with pytest.raises(DataError, match=r"`data.further` '.*below' and '.*photos' have photos in common"):
        Order(with_photos(recipe, (order.photos.path, order.photos.path / "below"))).check()
    torch.manual_seed(0)
    nine = replace(NETWORK, num_classes=9)
    torch.save(load_classifier(nine).network.state_dict(), tmp_path / "nine.pth")
    nine = replace(recipe, model=replace(nine, weights=tmp_path / "nine.pth"))
    with pytest.raises(DataError, match=r"`evaluate_on`: .* has 10 classes, the network 9"):
        Order(nine, tiny().data, Evaluation(split="test")).check()
    with pytest.raises(DataError, match=r"have images in common, .*14.png: measure on images that are not trained on"):
        replace(order, evaluate_on=replace(order.photos, further=())).check()
    names = tuple("0123456798")
    turned = replace(order, recipe=replace(recipe, model=replace(recipe.model, classes=names)), evaluate_on=tiny().data)
    with pytest.raises(DataError, match=r"`evaluate_on`: digits/test has '9' as class 9, the network as class 8, so"):
        replace(turned, evaluation=Evaluation(split="test")).check()
    several = Evaluation(split="test", explainers=("grad_cam", "hires_cam"))
    with pytest.raises(ArgumentError, match="`explainers` names several"):
        replace(order, evaluate_on=tiny().data, evaluation=several).check()


def test_photos_of_one_split_and_images_of_another(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    train_images, val_images = (image_set(Folder(tmp_path), split) for split in ("train", "val"))
    assert first_below(tmp_path / "train", val_images, tmp_path) == ""
    assert first_below(tmp_path / "train", train_images, tmp_path) == train_images.path(0)
    assert first_below(tmp_path / "val" / "b", val_images, tmp_path) == val_images.path(1)
    assert first_below(tmp_path, val_images, tmp_path) == val_images.path(0), "all below it is trained on"
    assert first_below(tmp_path.parent / "elsewhere", val_images, tmp_path) == ""


@pytest.mark.slow
def test_the_command(order, tmp_path, capsys, monkeypatch):
    weights, folder = str(order.recipe.model.weights), tmp_path / "run"
    words = ["--model", "contrex:convnet", "--model.options", "widths", "(4,6)", "strides", "(2,2)"]
    words += ["--model.weights", weights, "--images", str(order.photos.path), "--image-size", "32"]
    words += ["--training.batch-size", "8", "--training.epochs", "1", "--training.device", "cpu"]
    assert main(["retrofit", *words, "--preview"]) == 0
    told = capsys.readouterr().out
    assert "22 to train on, 2 kept out" in told
    assert "what features.0 gives for all plain photos" in told
    assert main(["retrofit", *words, "--offset", "None", "--folder", str(folder)]) == 0  # of three columns
    told = capsys.readouterr().out
    assert "Agreement with" in told
    assert f"weights: {folder / 'weights.pth'}" in told
    assert main(["retrofit", *words, "--folder", str(folder)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    for share, is_told in ((0.0, False), (10.0, True)):  # of spreads that are at most 100 times each other
        monkeypatch.setattr(sys.modules["contrex.cli.retrofit"], "SHRUNK", share)
        assert main(["retrofit", *words, "--folder", str(tmp_path / f"run-{share:g}")]) == 0
        assert ("look at the report: heatmaps cover" in capsys.readouterr().out) == is_told
    assert main(["retrofit", str(folder), "--images", "x", "--model.weights", weights]) == 2
    assert "two networks: give one of them" in capsys.readouterr().err
    assert main(["retrofit", *words, "--resume", "--folder", str(tmp_path / "none")]) == 2
    assert "--resume finds no run" in capsys.readouterr().err
    # a run instead of a file: its network, in the size that it was trained in
    again = ["--images", str(order.photos.path), "--training.batch-size", "8", "--training.device", "cpu", "--preview"]
    assert main(["retrofit", str(folder), *again]) == 0
    assert "22 to train on" in capsys.readouterr().out


def test_photos_that_come_while_it_trains_change_nothing(order, tmp_path, monkeypatch):
    """Others would be drawn of one more, of which most were trained on."""
    folders = [tmp_path / name for name in ("photos", "more")]
    for own, folder in zip((order.photos.path, *order.photos.further), folders, strict=True):
        shutil.copytree(own, folder)
    order = replace(order, recipe=varied(with_photos(order.recipe, tuple(folders)), epochs=1))
    kept_out = image_set(order.photos, "val").paths

    def trained(*args, **options):
        train(*args, **options)
        for number in range(3):
            shutil.copy(folders[0] / "n01_cat" / "1.png", folders[0] / f"{number}.png")

    monkeypatch.setattr(sys.modules["contrex.retrofit.run"], "train", trained)
    found = retrofit(order, tmp_path / "run", console=quiet())
    assert image_set(order.photos, "val").paths != kept_out
    assert [run.samples.paths for run in found.kept_out] == [kept_out] * 2


def test_what_is_in_the_folder_is_not_written_over(order, tmp_path, capsys):
    shutil.copy(order.recipe.model.weights, tmp_path / "weights.pth")
    before = (tmp_path / "weights.pth").read_bytes()
    recipe = replace(order.recipe, model=replace(order.recipe.model, weights=tmp_path / "weights.pth"))
    for resume in (False, True):
        with pytest.raises(ArgumentError, match=r"`folder` .* holds weights.pth, which would be written over"):
            retrofit(replace(order, recipe=recipe), tmp_path, console=quiet(), resume=resume)
    assert (tmp_path / "weights.pth").read_bytes() == before
    assert not (tmp_path / "recipe.json").exists()
    train(varied(order.recipe, epochs=1), tmp_path / "run", console=quiet())
    model, _, _ = original_of_run(tmp_path / "run", tmp_path / "new")
    assert original_of_run(tmp_path / "run", tmp_path / "new")[0] == model, "as it is where one is resumed"
    torch.save({"fc.weight": torch.zeros(1)}, model.weights)
    with pytest.raises(ArgumentError, match=r"`folder` .*new holds an original.pth with other weights"):
        original_of_run(tmp_path / "run", tmp_path / "new")


def test_a_file_of_another_layout_and_type(order, tmp_path):
    """It is measured afterwards, too, as what the file holds: in half precision here."""
    state = torch.load(order.recipe.model.weights, weights_only=True)
    inner = {f"model.{name}": value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"state_dict": inner}, tmp_path / "old.ckpt")
    model = replace(NETWORK, weights=tmp_path / "old.ckpt", layout="lightning")
    short = varied(replace(order.recipe, model=model), epochs=1)
    asked = replace(
        order, recipe=short, evaluate_on=tiny().data, evaluation=Evaluation(metrics=("top1",), split="test")
    )
    found = retrofit(asked, tmp_path / "run", console=quiet())
    assert found.weights == tmp_path / "run" / "weights.ckpt"
    assert all(
        value.dtype == torch.float16 for value in torch.load(found.weights).values() if value.is_floating_point()
    )
    assert [run.record.name for run in found.measured] == ["before", "after"]
    groups = validation_groups(image_set(order.photos, "val"), order.photos)
    written = load_classifier(replace(NETWORK, weights=found.weights))
    images = written.normalise(torch.stack([views.square for group in groups for views in group]))
    with torch.no_grad():
        probabilities = written.network.eval()(images).double().softmax(1).amax(1).tolist()
    expected = dict(zip(image_set(order.photos, "val").paths, probabilities, strict=True))
    shown = found.kept_out[1].gallery
    np.testing.assert_allclose(shown.probabilities, [expected[path] for path in shown.paths], atol=1e-6)


def test_it_is_measured_again_with_another_offset_or_other_metrics(order, tmp_path):
    """A record of other settings stays, and the page is of the new ones."""
    asked = replace(order, evaluate_on=tiny().data, evaluation=Evaluation(metrics=("top1",), split="test"))
    asked = replace(asked, recipe=varied(order.recipe, epochs=1))
    first = retrofit(asked, tmp_path / "run", console=quiet())
    again = replace(asked, offset=0.5, evaluation=Evaluation(metrics=("top1", "spread"), split="test"))
    second = retrofit(again, tmp_path / "run", console=quiet(), resume=True)
    assert [run.record.name for run in second.measured] == ["before", "trained", "after"]
    spreads = [run.record.metric("spread").value for run in second.measured]
    assert spreads[2] < spreads[1]
    assert "Spread" in second.measured_report.read_text()
    assert len(list((tmp_path / "run").glob("after-*/record.json"))) == 2
    assert read_run(tmp_path / "run" / f"after-{type(tiny().data).__name__}").record == first.measured[1].record


def test_the_network_is_measured_in_its_own_frame():
    """A library's own weights have one, also where they come from a file; of images to measure on both sides follow."""
    cli = sys.modules["contrex.cli.retrofit"]
    options = cli.Retrofit(cli.Photos((Path("x"),)))

    def made(measured, **changes):
        order = cli._order(replace(options, **changes), measured, Path("unused"))
        return [(data.image_size, data.resize) for data in (order.photos, order.evaluate_on)]

    weights = Path("FILE")
    measured = Folder(Path("y"), image_size=224, resize=256)
    model = Model("contrex:convnet", weights=weights)
    assert made(measured, model=model) == [(224, 256)] * 2
    assert made(measured, model=model, photos=replace(options.photos, image_size=64)) == [(64, 73)] * 2


def test_a_frame_of_the_library(order, tmp_path, monkeypatch):
    cli, run = sys.modules["contrex.cli.retrofit"], sys.modules["contrex.retrofit.run"]
    known = replace(load_classifier(order.recipe.model), image_size=224, short_side=232)
    monkeypatch.setattr(run, "load_classifier", lambda model: known)
    for weights in (tmp_path / "own.pth", None):
        model = Model("torchvision:resnet50", weights=weights, pretrained=True)
        options = cli.Retrofit(cli.Photos((tmp_path,)), model=model)
        found = cli._order(options, Folder(tmp_path, image_size=224, resize=256), tmp_path / "run")
        assert found.recipe.model.weights == (weights or tmp_path / "run" / "original.pth")
        assert [(data.image_size, data.resize) for data in (found.photos, found.evaluate_on)] == [(224, 232)] * 2


@pytest.mark.parametrize("put", [os.symlink, shutil.copy])
def test_links_and_copies_are_no_way_around(order, tmp_path, put):
    """A part of the photos, chosen by links or copied, is not measured on."""
    chosen = tmp_path / "chosen" / "val" / "cat"
    chosen.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(chosen / "0.png")
    images = image_set(Folder(tmp_path / "chosen", image_size=8, resize=8), "val")
    photos = sorted(order.photos.path.rglob("*.png"))
    assert among(images, tmp_path / "chosen", photos) == ""
    put(photos[3], chosen / "1.png")
    data = Folder(tmp_path / "chosen", image_size=8, resize=8)
    assert among(image_set(data, "val"), tmp_path / "chosen", photos).endswith("cat/1.png")
    with pytest.raises(DataError, match=r"have images in common, .*cat/1.png: measure on images"):
        replace(order, evaluate_on=data).check()


def test_errors_name_the_options_of_the_command(order, tmp_path, capsys):
    words = ["retrofit", "--model", "contrex:convnet", "--model.weights", str(order.recipe.model.weights)]
    words += ["--model.options", "widths", "(4,6)", "strides", "(2,2)", "--training.device", "cpu"]
    photos = ["--images", str(order.photos.path)]
    nowhere = str(tmp_path / "nowhere")
    for more, message in (
        ([*photos, "--kept-out", "0"], "--kept-out"),
        (["--images", nowhere], f"--images must be a folder with images; there is no folder '{nowhere}'"),
        ([*photos, str(order.photos.path / "below")], "--images '.*below' and .* have photos in common"),
        ([*photos, "--device", "cpu"], r"--device cpu: a retrofit has one, --training.device cpu"),
        ([*photos, "--metrics", "top1"], r"--metrics: how images with labels are measured, and none are named"),
        ([*photos, "--batch-size", "8", "--workers", "3"], r"--batch-size, --workers: how .* --training.batch-size"),
        ([*photos, "--evaluate-on", "digits", "--checkpoint", "best"], "`checkpoint` best is for runs"),
    ):
        assert main([*words, *more, "--training.batch-size", "8", "--folder", str(tmp_path / "run")]) == 2, more
        assert re.search(message, " ".join(capsys.readouterr().err.split())), more
    shutil.copytree(order.photos.path, tmp_path / "photos")
    for path in sorted((tmp_path / "photos").rglob("*.png"))[:10]:
        path.write_bytes(f"no picture {path.name}".encode())
    words += ["--images", str(tmp_path / "photos"), "--image-size", "32", "--training.batch-size", "4", "--preview"]
    assert main(words) == 2
    assert "leave such files out: --on-bad-image skip" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--on-bad-image", "skip"]) == 0
    assert "13 to train on, 1 kept out" in capsys.readouterr().out


def test_a_stopped_retrofit_names_the_command_that_also_writes_weights(order, tmp_path, capsys, monkeypatch):
    def stopped(*args, **options):
        raise interrupted(signal.SIGTERM, tmp_path, Place(step=3, epoch=1))

    monkeypatch.setattr(sys.modules["contrex.retrofit"], "retrofit", stopped)
    words = ["--model", "contrex:convnet", "--model.weights", str(order.recipe.model.weights), "--images", "x"]
    assert main(["retrofit", *words, "--folder", str(tmp_path / "run")]) == 143
    told = capsys.readouterr().err
    assert "stopped by SIGTERM after step 3; the same command with --resume continues." in told


def test_the_command_refuses_before_it_looks_at_photos(capsys):
    assert main(["retrofit", "--images", "x"]) == 2
    assert "`model.weights` is needed" in capsys.readouterr().err
    assert main(["retrofit", "--images", "x", "--evaluate-on"]) == 2
    assert "--evaluate-on takes one data set" in capsys.readouterr().err


def test_a_class_stands_in_for_a_label(order):
    classifier, data = load_classifier(order.recipe.model), order.photos
    found = KeptOut.by(classifier, image_set(data, "val"), data, sure=0.9, device=torch.device("cpu"))
    assert len(found.classes) == 10
    assert [one.path for one in found] == [one.path for one in image_set(data, "val")]
    groups = validation_groups(found, data)
    assert validate(classifier, groups, device=torch.device("cpu")).top1 == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        Model("timm:mobilenetv2_050", num_classes=10),
        Model("timm:vit_tiny_patch16_224", {"img_size": "64", "depth": "4"}, num_classes=10),
    ],
    ids=lambda model: model.name,
)
def test_networks_of_timm(order, tmp_path, model):
    """The weights load by timm's own `checkpoint_path`, strictly."""
    import timm

    torch.manual_seed(0)
    torch.save(load_classifier(model).network.state_dict(), tmp_path / "old.pth")
    recipe = replace(order.recipe, model=replace(model, weights=tmp_path / "old.pth"))
    recipe = replace(recipe, data=replace(order.photos, image_size=64, resize=64))
    is_square = "vit" in model.name
    asked = Order(recipe, replace(tiny().data, image_size=64), Evaluation(metrics=("content_heatmap",), split="test"))
    if is_square:
        with pytest.raises(ArgumentError, match=r"takes squares only.*--content-heatmap-protocol square"):
            asked.check()
    asked = replace(asked, evaluation=replace(asked.evaluation, content_heatmap_protocol="square"))
    found = retrofit(asked, tmp_path / "run", console=quiet())
    assert found.measured[1].record.metric("content_heatmap") is not None
    options = {"img_size": 64, "depth": 4} if "vit" in model.name else {}
    name = model.name.removeprefix("timm:")
    network = timm.create_model(name, num_classes=10, checkpoint_path=str(found.weights), **options).eval()
    images = torch.randn(2, 3, 64, 64)
    own = load_classifier(replace(model, weights=found.weights)).network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images), own(images))
