"""Retrofits as runs: photos without labels alone, resumed bit for bit, and what is left of the teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from contrex.cli.train import _check_evaluation
from contrex.data import image_set
from contrex.data.views.squares import central_square
from contrex.errors import ArgumentError, CheckpointError, DataError
from contrex.experiment import evaluate_run
from contrex.export import export_run
from contrex.methods import METHODS
from contrex.models import load_classifier
from contrex.settings import Labelled, Optimizer, Retrofit, UnlabelledPhotos
from contrex.training import load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from contrex.training.preparing import names_of_classes
from sampling import crossed
from training.runs import quiet, stopped_and_resumed, tiny, varied


def photos(folder, num=20):
    generator = torch.Generator().manual_seed(0)
    for number in range(num):
        file = folder / ("n01_cat" if number % 2 else "below/n02_dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        colours = torch.randint(255, (8, 9, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(colours.numpy()).resize((40, 36)).save(file)
    return UnlabelledPhotos(folder, image_size=32, resize=34, val_share=0.2)


@pytest.fixture
def recipe(tmp_path):
    """A network of ten classes with weights of its own, and photos that know nothing of them."""
    recipe = tiny()
    torch.manual_seed(7)
    torch.save(load_classifier(recipe.model, num_classes=10).network.state_dict(), tmp_path / "weights.pth")
    return replace(
        recipe,
        data=photos(tmp_path / "photos"),
        model=replace(recipe.model, weights=tmp_path / "weights.pth", num_classes=10),
        method=Retrofit(weight=2.0, resolution=32, queue=12),
        optimizer=Optimizer("adamw", lr=3e-3, weight_decay=0.1),
    )


def test_names_and_numbers_of_classes_that_do_not_fit(tmp_path, recipe):
    with pytest.raises(
        ArgumentError, match=r"`model.classes` has 2 names, contrex:convnet 10 classes: give one for each"
    ):
        train(replace(recipe, model=replace(recipe.model, classes=("a", "b"))), tmp_path / "run", console=quiet())
    one = replace(recipe.model, num_classes=1)
    torch.save(load_classifier(replace(one, weights=None)).network.state_dict(), tmp_path / "one.pth")
    with pytest.raises(
        ArgumentError, match=r"contrex:convnet has 1 logit, .* a softmax says, which is then 1 whatever"
    ):
        train(replace(recipe, model=replace(one, weights=tmp_path / "one.pth")), tmp_path / "run", console=quiet())


def test_photos_without_labels_alone(tmp_path, recipe):
    recipe = replace(recipe, model=replace(recipe.model, num_classes=None))
    train(recipe, tmp_path / "run", console=quiet())
    steps = [line for line in read_log(tmp_path / "run") if "loss" in line]
    ends = [line for line in read_log(tmp_path / "run") if "val_agreement" in line]
    assert [line["epoch"] for line in ends] == [0, 1]
    assert len(steps) == 4, "two batches of 8 of the 16 photos that are not kept out"
    for line in steps:
        assert line["loss"] == pytest.approx(line["distillation"] + 2 * line["consistency"], rel=1e-5)
        assert "accuracy" not in line
    assert not any("val_top1" in line for line in read_log(tmp_path / "run"))
    saved = Checkpoints(tmp_path / "run").load()
    assert saved["classes"] == [str(number) for number in range(10)]
    own = replace(load_classifier(recipe.model), names=tuple("abcdefghij"))
    assert names_of_classes(own, recipe) == tuple("abcdefghij"), "those that a library's weights bring"
    assert load_trained(tmp_path / "run")[1].interpolation == "bilinear", "as the photos were resized"
    assert Checkpoints(tmp_path / "run").file("best") == Checkpoints(tmp_path / "run").file("last")


def test_what_is_validated_is_the_agreement_with_the_teacher_on_kept_out_photos(tmp_path, recipe):
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, lr=0.05))
    train(recipe, tmp_path / "run", console=quiet())
    _, classifier, _ = load_trained(tmp_path / "run")
    before = load_classifier(recipe.model)
    kept_out = image_set(recipe.data, "val")
    assert len(kept_out) == 4
    squares = [np.asarray(central_square(one.image, resize=34, size=32)) for one in kept_out]
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        own, theirs = (
            one.network.eval()(one.normalise(images)).double().log_softmax(1) for one in (classifier, before)
        )
    (line,) = [line for line in read_log(tmp_path / "run") if line.get("val_agreement") is not None and line["epoch"]]
    assert line["val_divergence"] == pytest.approx(float((theirs.exp() * (theirs - own)).sum(1).mean()), rel=1e-4)
    assert line["val_agreement"] == pytest.approx(100 * float((own.argmax(1) == theirs.argmax(1)).double().mean()))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"teacher_decay": 0.6, "mode": "train", "negatives": False, "queue": 0},
        {"keep_gib": 5e-5, "rescale": True},
        pytest.param({"view_layer": "trunk", "incomplete": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_resumed_bit_for_bit(tmp_path, recipe, options):
    recipe = replace(recipe, method=replace(recipe.method, **options))
    stopped_and_resumed(varied(recipe, ema=0.9), tmp_path, steps=(2,))


def test_other_photos_are_not_resumed_as_others_would_be_kept_out(tmp_path, recipe):
    """Also where they are as many."""
    recipe = replace(recipe, training=replace(recipe.training, epochs=1))
    train(recipe, tmp_path / "run", console=quiet())
    train(recipe, tmp_path / "run", resume=True, console=quiet())
    (tmp_path / "photos" / "n01_cat" / "3.png").rename(tmp_path / "photos" / "z.png")
    with pytest.raises(CheckpointError, match=r"have other names than when the run was started, and others would be"):
        train(recipe, tmp_path / "run", resume=True, console=quiet())


@pytest.mark.slow
def test_labelled_images_beside_photos_are_resumed_too(tmp_path, recipe):
    beside = Labelled(unlabelled=recipe.data.path, unlabelled_batch_size=6)
    recipe = replace(
        recipe, data=tiny().data, labelled=beside, method=replace(recipe.method, label_weight=0.5, teacher_decay=0.6)
    )
    stopped_and_resumed(recipe, tmp_path, steps=(1, 3))
    lines = read_log(tmp_path / "straight")
    assert {"val_top1", "val_loss"} <= lines[3].keys()
    assert {"accuracy", "agreement", "cross_entropy", "distillation", "consistency"} <= lines[0].keys()


def test_only_the_trained_part_moves_and_the_teacher_does_not(tmp_path, recipe):
    """Also with an optimiser that decays weights; what is exported is the network alone."""
    before = torch.load(recipe.model.weights, weights_only=True)
    train(recipe, tmp_path / "run", console=quiet())
    (state,) = Checkpoints(tmp_path / "run").load()["steps"]
    _, classifier, _ = load_trained(tmp_path / "run")
    after = classifier.network.state_dict()
    exported = load_file(export_run(tmp_path / "run", "safetensors").path)
    assert exported.keys() == after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(state[f"teacher.network.{name}"], value)
        is_moved = not name.startswith("features.0.") and "running" not in name and "num_batches" not in name
        assert torch.equal(after[name], value) is not is_moved, name
    assert all(parameter.requires_grad for parameter in classifier.network.parameters())


def test_a_retrofitted_network_is_measured_on_any_images_of_as_many_classes(tmp_path, recipe):
    train(varied(recipe, epochs=1), tmp_path / "run", console=quiet())
    options = replace(recipe.evaluation, metrics=("top1", "content_heatmap"), device="cpu")
    found, _ = evaluate_run(tmp_path / "run", options, console=quiet(), data=tiny().data)
    assert found.record.dataset["num_images"] == 12
    with pytest.raises(DataError, match="has no label, and an evaluation needs one"):
        evaluate_run(tmp_path / "run", replace(options, split="val"), console=quiet())
    with pytest.raises(DataError, match=r"`evaluation.split`: photos/val has no labels.*Add --no-evaluate"):
        _check_evaluation(replace(recipe, evaluation=replace(options, split="val")))


# --- photos without labels ------------------------------------------------------------------------------------------


def test_kept_out_photos_are_a_draw(tmp_path):
    settings = photos(tmp_path)
    train_on, kept_out = (set(image_set(settings, split).paths) for split in ("train", "val"))
    assert (len(train_on), len(kept_out)) == (16, 4)
    assert not train_on & kept_out
    others = set(image_set(replace(settings, val_seed=1), "val").paths)
    assert others != kept_out
    assert len(image_set(replace(settings, val_share=0.001), "val")) == 1
    assert len(image_set(replace(settings, val_share=0.999), "train")) == 1
    assert {sample.label for sample in image_set(settings, "val")} == {-1}


def test_what_is_refused(tmp_path):
    settings = photos(tmp_path / "photos", num=2)
    with pytest.raises(DataError, match="have the splits train and val, the kept-out ones; got 'test'"):
        image_set(settings, "test")
    with pytest.raises(DataError, match=r"`data.path` must be a folder with images; there is no folder"):
        image_set(replace(settings, path=tmp_path / "none"), "train")
    min((tmp_path / "photos").rglob("1.png")).unlink()
    with pytest.raises(DataError, match="has one image, and one is kept out"):
        image_set(settings, "train")
    with pytest.raises(ArgumentError, match=r"`data.val_share` must be a share of the photos, between 0 and 1, got 0"):
        replace(settings, val_share=0.0)


@pytest.mark.parametrize("method", crossed(sorted(METHODS), one_in=3))
def test_methods_that_need_labels_refuse_photos_without(tmp_path, recipe, method):
    made = METHODS[method]()
    made = replace(made, label_weight=1.0) if method == "retrofit" else made
    with pytest.raises(ArgumentError, match=r"photos/train has no labels, and is not for \w+: its .*Train Retrofit"):
        train(replace(recipe, method=made), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()
