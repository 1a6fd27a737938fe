"""Exported classifiers: every format gives the run's logits where it is loaded, and says what it cannot hold."""

import copy
import hashlib
import json
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import safetensors
import timm
import torch
import torchvision

from contrex import cli
from contrex.cli.export import Export
from contrex.errors import ArgumentError, CheckpointError, UnknownNameError, WeightsError
from contrex.export import FORMATS, export_model, export_run, formats
from contrex.methods import training_plan
from contrex.models import load_classifier
from contrex.models.named import library_of
from contrex.records import to_plain
from contrex.settings import CrossEntropy, Digits, Model, Recipe, Training
from contrex.training.checkpoint import Checkpoints
from contrex.training.trained import trained
from sampling import sampled

NAMES = ("zero", "one", "two", "<three>")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def run_of(folder, name, options=None, stem="built-in", **pooling):
    """A run folder with random weights, which are not the builder's: nothing is trained."""
    data = Digits(image_size=32, digit_size=(14, 18))
    model = Model(name, options=options or {}, stem=stem, mean=MEAN, std=STD, **pooling)
    recipe = Recipe("exported", data, model, CrossEntropy(), training=Training(seed=5))
    classifier = load_classifier(model, num_classes=len(NAMES))
    plan = training_plan(classifier, recipe)
    with torch.no_grad():
        for tensor in classifier.network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.01 * torch.rand_like(tensor))
    content = {
        "steps": [step.state_dict() for step in plan.modules()],
        "recipe": to_plain(recipe),
        "classes": list(NAMES),
        "place": {"epoch": 2, "phase": 0, "batch": 0, "step": 6, "best": 1.0},
        "epochs": 2,
    }
    Checkpoints(folder).save(content, step=6, best=False)
    return folder


@pytest.fixture(scope="module")
def torchvision_run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("torchvision"), "torchvision:squeezenet1_1", {"dropout": "0.25"})


@pytest.fixture(scope="module")
def timm_run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("timm"), "timm:test_resnet")


@pytest.fixture(scope="module")
def convnet_run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("convnet"), "contrex:convnet", {"widths": "(4, 6)", "strides": "(2, 2)"})


def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def normalised():
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images() - mean) / std


def own_logits(run):
    _, classifier, _ = trained(Checkpoints(run).load())
    with torch.inference_mode():
        return classifier.network.eval()(normalised())


def card_of(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


# --- the formats ----------------------------------------------------------------------------------------------------


def test_torchvision_takes_its_file_strictly(torchvision_run):
    exported = export_run(torchvision_run, "torchvision")
    network = torchvision.models.get_model("squeezenet1_1", num_classes=4)
    network.load_state_dict(torch.load(torchvision_run / "classifier-last.torchvision.pth", weights_only=True))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(normalised()), own_logits(torchvision_run))
    assert exported.checked.startswith(f"loaded back by torchvision {torchvision.__version__}; largest difference")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", ["mobilenet_v3_small.IMAGENET1K_V1", "googlenet"])
def test_torchvision_takes_files_of_networks_with_its_own_weights(tmp_path, name, monkeypatch):
    """A name may say which weights, and some are built otherwise for them; here theirs are drawn."""
    model = Model(f"torchvision:{name}", pretrained=True)
    torch.manual_seed(0)
    library, architecture = library_of(model.name)
    network = library.build(architecture, {}, like_pretrained=True)
    network.load_state_dict({n: v + 0.01 if v.is_floating_point() else v for n, v in network.state_dict().items()})
    monkeypatch.setattr(type(library), "pretrained", lambda *_: copy.deepcopy(network))
    export = export_model(model, "torchvision", tmp_path / "file.pth")
    assert export.path.is_file()


def test_timm_takes_its_file(timm_run):
    path = export_run(timm_run, "timm").path
    network = timm.create_model("test_resnet", checkpoint_path=str(path), num_classes=4)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(normalised()), own_logits(timm_run))
    assert path.name == "classifier-last.timm.safetensors"


@sampled(one_in=2)
@pytest.mark.parametrize("kind", ["torchvision_run", "timm_run", "convnet_run"])
def test_safetensors_hold_plain_keys_and_what_they_are(kind, request):
    run = request.getfixturevalue(kind)
    path = export_run(run, "safetensors").path
    recipe, classifier, _ = trained(Checkpoints(run).load())
    with safetensors.safe_open(path, "pt") as file:
        assert set(file.keys()) == set(classifier.network.state_dict())
        about = file.metadata()
    assert json.loads(about["classes"]) == list(NAMES)
    assert json.loads(about["input"])["mean"] == list(MEAN)
    assert about["format"] == "pt"
    again = load_classifier(replace(recipe.model, weights=path))
    with torch.inference_mode():
        torch.testing.assert_close(again.network.eval()(again.normalise(images())), own_logits(run))


def test_the_card_has_what_is_needed_to_use_the_file(torchvision_run, tmp_path):
    path = tmp_path / "somewhere" / "x.pth"
    exported = export_run(torchvision_run, "torchvision", output=path)
    card = card_of(path)
    assert exported.card == path.with_name("x.pth.json")
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card["classes"], card["input"]["mean"], card["input"]["std"]) == (list(NAMES), list(MEAN), list(STD))
    assert (card["input"]["central_square"], card["input"]["normalised_inside"]) == (32, False)
    assert card["network"] == {
        "library": "torchvision", "architecture": "squeezenet1_1", "options": {"dropout": "0.25"}, "stem": "built-in",
        "pooling": "mean", "pooling_temperature": 1.0, "num_classes": 4,
    }  # fmt: skip
    assert (card["run"]["step"], card["run"]["seed"], card["schema_version"]) == (6, 5, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        assert (
            str(eval(card["load"], {"torchvision": torchvision, "torch": torch})) == "<All keys matched successfully>"
        )
    assert sorted(path.parent.iterdir()) == [path, exported.card]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the exporter and what it imports
@pytest.mark.parametrize("kind", ["torchvision_run", "timm_run", "convnet_run"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_onnx_takes_pixel_values_in_batches_of_any_size(kind, runtime, request, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    if runtime == "reference":
        monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else name)
    run = request.getfixturevalue(kind)
    exported = export_run(run, "onnx")
    assert (
        f"loaded back by {'onnxruntime' if runtime == 'onnxruntime' else 'the reference of onnx'}" in exported.checked
    )
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (logits,) = session.run(["logits"], {"images": images()[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), own_logits(run)[:count], rtol=1e-4, atol=1e-5)
    about = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert json.loads(about["classes"]) == list(NAMES)
    assert card_of(exported.path)["input"]["normalised_inside"] is True
    assert len(list(run.glob("*.onnx*"))) == 2


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["torchvision", "timm"])
def test_the_built_in_network_is_nobody_elses(convnet_run, other):
    with pytest.raises(
        ArgumentError, match=f"contrex:convnet is contrex's own, and {other} could not build it: use saf"
    ):
        export_run(convnet_run, other)


def test_networks_of_another_library_or_stem(torchvision_run, timm_run, tmp_path):
    with pytest.raises(
        ArgumentError, match="torchvision:squeezenet1_1 is one of torchvision, and timm could not build"
    ):
        export_run(torchvision_run, "timm")
    with pytest.raises(ArgumentError, match="timm:test_resnet is one of timm, and torchvision could not build"):
        export_run(timm_run, "torchvision")
    small = run_of(
        tmp_path, "timm:resnet10t", {"stem_type": "", "channels": "(4, 4, 4, 4)", "stem_width": "4"}, "cifar"
    )
    with pytest.raises(
        ArgumentError, match="timm:resnet10t was trained with the stem 'cifar', and timm builds it with"
    ):
        export_run(small, "timm")
    assert export_run(small, "safetensors").checked.startswith("loaded back by contrex; ")


def test_the_pooling_is_part_of_the_run_and_of_its_file(tmp_path):
    run = run_of(tmp_path, "timm:test_resnet", pooling="logsumexp", pooling_temperature=0.3)
    _, classifier, _ = trained(Checkpoints(run).load("last"))
    assert str(classifier.network.global_pool.pool) == "GlobalPooling(logsumexp, temperature=0.3)"
    assert export_run(run, "safetensors").checked.startswith("loaded back by contrex; ")
    with pytest.raises(ArgumentError, match="was trained with the pooling logsumexp, and timm builds its own: use saf"):
        export_run(run, "timm")


def test_a_file_that_gives_other_logits_is_not_left_behind(convnet_run, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_text("what was there")
    state = formats._state

    def damaged(found):
        return {key: value + 0.01 if key == "fc.bias" else value for key, value in state(found).items()}

    monkeypatch.setattr(formats, "_state", damaged)
    with pytest.raises(
        WeightsError, match=r"loaded back by contrex, contrex:convnet gives other logits: .*difference 0.01"
    ):
        export_run(convnet_run, "safetensors", output=path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["what was there"]


def test_what_else_is_refused(convnet_run, tmp_path, monkeypatch):
    with pytest.raises(
        UnknownNameError, match="`format` must be one of safetensors, torchvision, timm, onnx; got 'onx'"
    ):
        export_run(convnet_run, "onx")
    with pytest.raises(ArgumentError, match=r"`output` x.pth needs the suffix .onnx of the format onnx"):
        export_run(convnet_run, "onnx", output=tmp_path.joinpath("x.pth").relative_to(tmp_path))
    with pytest.raises(CheckpointError, match=r"no 'best' checkpoint in .*: it has \['last'\]"):
        export_run(convnet_run, "safetensors", checkpoint="best")
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ArgumentError, match=r"`format` onnx needs onnxscript: pip install 'contrex\[onnx\]'"):
        export_run(convnet_run, "onnx")


def test_a_network_that_the_exporter_cannot_translate(convnet_run, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator\n and a page more")

    monkeypatch.setattr(torch.onnx, "export", failing)
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    with pytest.raises(ArgumentError, match=r"cannot translate contrex:convnet: no such operator. Use safetensors"):
        export_run(convnet_run, "onnx", output=tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_where_and_how_it_was_checked(convnet_run, tmp_path, capsys):
    words = ["export", str(convnet_run), "--format", "safetensors", "--output", str(tmp_path / "x.safetensors")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"exported: {tmp_path / 'x.safetensors'}" in said
    assert "checked: loaded back by contrex; largest difference of a logit 0.0e+00" in said
    assert cli.main(["export", str(tmp_path), "--format", "onnx"]) == 2
    assert "no 'last' checkpoint" in capsys.readouterr().err


def test_the_formats_of_the_command_are_those_there_are():
    assert set(get_args(get_type_hints(Export)["format"])) == set(FORMATS)
