"""Networks of libraries with their own weights, from a cache that a test fills: nothing is fetched."""

import json
import shutil
import urllib.error
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import contrex
from contrex.cli import main
from contrex.cli.measure import as_seen_by
from contrex.errors import ArgumentError, NormalisationWarning, UnknownNameError, WeightsError
from contrex.models import Classifier, load_classifier
from contrex.models.convnet import ConvNet
from contrex.models.hub import view_of_processor
from contrex.models.zero_shot import ZeroShot
from contrex.photos import NamedClassifier, classifier_of, seen_by
from contrex.recipes.digits import cross_entropy
from contrex.records import from_plain, to_plain
from contrex.settings import IMAGENET_MEAN, Digits, Folder, Model
from contrex.training import load_trained, saved_recipe, train


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """torch's cache with SqueezeNet's file in it, of random weights, and these."""
    import torchvision

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1().state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    torch.save(state, file)
    return file, state


def test_torchvisions_weights_come_with_all_that_belongs_to_them(cached):
    file, state = cached
    found = contrex.load("torchvision:squeezenet1_1", pretrained=True)
    assert all(torch.equal(value, state[name]) for name, value in found.network.state_dict().items())
    assert (found.mean, found.image_size, found.short_side, found.interpolation) == (
        IMAGENET_MEAN,
        224,
        256,
        "bilinear",
    )
    assert found.names[281:283] == ("tabby", "tiger cat")
    file.rename(file.with_name("mine.pth"))
    by_file = contrex.load("torchvision:squeezenet1_1", pretrained=True, weights=file.with_name("mine.pth"))
    assert torch.equal(by_file.network.state_dict()["features.0.weight"], state["features.0.weight"])
    assert (by_file.mean, by_file.names) == (found.mean, found.names)


@pytest.mark.slow
def test_a_librarys_own_network_is_retrofitted(cached, tmp_path):
    _, state = cached
    (tmp_path / "photos").mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 72, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    words = ["--model", "torchvision:squeezenet1_1", "--pretrained", "--images", str(tmp_path / "photos")]
    words += ["--training.epochs", "1", "--training.batch-size", "8", "--image-size", "64", "--kept-out", "0.2"]
    assert main(["retrofit", *words, "--folder", str(tmp_path / "run"), "--training.device", "cpu"]) == 0
    written = torch.load(tmp_path / "run" / "weights.pth")
    assert written.keys() == state.keys()
    moved = {name for name, value in written.items() if not torch.equal(value, state[name])}
    assert {name.split(".")[0] for name in moved} == {"features", "classifier"}
    assert "features.0.weight" not in moved  # only the last stage
    assert load_classifier(saved_recipe(tmp_path / "run").model).mean == IMAGENET_MEAN


def test_a_new_head_on_pretrained_weights_is_asked_for(cached):
    _, state = cached
    model = Model("torchvision:squeezenet1_1", pretrained=True)
    with pytest.raises(
        WeightsError, match=r"`model.name` torchvision:squeezenet1_1 does not fit.*--model.fresh classifier.1"
    ):
        load_classifier(model, num_classes=3)
    found = load_classifier(Model(model.name, pretrained=True, fresh=("classifier.1",)), num_classes=3).network
    assert found.classifier[1].weight.shape[0] == 3
    assert torch.equal(found.features[0].weight, state["features.0.weight"])
    bare = load_classifier(model, num_classes=3, is_bare=True)  # for a run's own weights: needs no file
    assert bare.mean == IMAGENET_MEAN
    assert not torch.equal(bare.network.features[0].weight, state["features.0.weight"])


def test_without_a_network_the_error_names_cache_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    message = (
        r"`model.pretrained`: torchvision cannot get the weights of torchvision:resnet18: .*no network.*"
        r"hub/checkpoints/resnet18-f37072fd.pth \(from https://download.*--pretrained --model.weights FILE"
    )
    with pytest.raises(WeightsError, match=message) as caught:
        load_classifier(Model("torchvision:resnet18", pretrained=True))
    assert isinstance(caught.value.__cause__, urllib.error.URLError)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with pytest.raises(
        WeightsError, match=r"timm cannot get .*hf/models--timm--test_vit.r160_in1k \(from timm/test_vit"
    ):
        load_classifier(Model("timm:test_vit", pretrained=True))


def test_timms_weights_come_with_all_that_belongs_to_them(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    snapshot = tmp_path / "models--timm--test_vit.r160_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = contrex.load("timm:test_vit", pretrained=True)
    assert all(torch.equal(value, state[name]) for name, value in found.network.state_dict().items())
    config = found.network.pretrained_cfg
    assert (found.mean, found.image_size) == (tuple(config["mean"]), config["input_size"][1])
    assert len(found.names) == 1000
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (190, 220, 3), dtype=np.uint8))
    why = contrex.why(image, found, target="tabby", contrast="tiger cat")
    assert torch.equal(
        why.heatmap, contrex.GradCAM(found)(why_input(why, found), target="tabby", contrast="tiger cat").heatmap
    )


def why_input(why, classifier):
    return classifier.normalise(torch.from_numpy(why.images[0].pixels.copy()).permute(2, 0, 1)[None])


def test_a_file_with_auxiliary_classifiers(monkeypatch, tmp_path):
    """torchvision builds GoogLeNet without them, and its file has them."""
    with_them = nn.Sequential(OrderedDict(fc=nn.Linear(2, 3), aux1=nn.Linear(2, 3)))
    torch.save(with_them.state_dict(), tmp_path / "googlenet.pth")
    built = []

    def build(name, weights, **arguments):
        built.append(arguments)
        return nn.Sequential(OrderedDict(fc=nn.Linear(2, 3)))

    monkeypatch.setattr("torchvision.models.get_model", build)
    found = load_classifier(Model("torchvision:googlenet", pretrained=True, weights=tmp_path / "googlenet.pth"))
    assert built[0] == {"transform_input": True, "aux_logits": False}
    assert found.left_out == ("aux1",)
    assert torch.equal(found.network.fc.weight, with_them.fc.weight)


def test_names_of_weights():
    with pytest.raises(UnknownNameError, match=r"'torchvision:resnet50.' must be one of IMAGENET1K_V1, IMAGENET1K_V2"):
        load_classifier(Model("torchvision:resnet50.V3", pretrained=True))
    with pytest.raises(ArgumentError, match=r"resnet50.IMAGENET1K_V1 names weights: add --pretrained"):
        load_classifier(Model("torchvision:resnet50.IMAGENET1K_V1"))
    with pytest.raises(ArgumentError, match="contrex has no weights to take: name a file"):
        load_classifier(Model("contrex:convnet", pretrained=True))


def test_a_typed_normalisation_that_disagrees_is_told(cached):
    model = {"name": "torchvision:squeezenet1_1", "pretrained": True, "mean": (0.485, 0.456, 0.406)}
    assert load_classifier(Model(**model)).mean == IMAGENET_MEAN
    with pytest.warns(
        NormalisationWarning, match=r"`model.std` \(0.5, 0.5, 0.5\) is not what torchvision:squeezenet1_1"
    ):
        found = load_classifier(Model(**model, std=(0.5,)))
    assert found.std == (0.5,) * 3
    with pytest.warns(NormalisationWarning, match="`model.mean`"):
        contrex.load("torchvision:squeezenet1_1", pretrained=True, mean=(0.0,))


def test_settings_are_written_as_ever():
    """Records of networks that are not pretrained do not change, and what is read is what was written."""
    plain = to_plain(Model())
    assert (plain["mean"], "pretrained" in plain, "classes" in plain) == (list(IMAGENET_MEAN), False, False)
    asked = Model("timm:resnet50", pretrained=True)
    assert to_plain(asked)["mean"] is None
    for model in (Model(), Model(mean=IMAGENET_MEAN), asked, Model(pretrained=True, mean=IMAGENET_MEAN)):
        assert from_plain(to_plain(model), Model) == model
    assert Model(mean=IMAGENET_MEAN) == Model()


# --- files that are no weights of the network -----------------------------------------------------------------------


def script(path):
    with pytest.warns(FutureWarning):
        torch.jit.script(nn.Linear(2, 3)).save(path)


def test_files_that_hold_something_else_are_told_by_name(tmp_path):
    import torchvision

    file = tmp_path / "file.pth"
    kinds = (
        (
            lambda: torch.save(nn.Sequential(nn.Linear(2, 3)), file),
            r"holds a whole module \(torch.nn.modules.container",
        ),
        (lambda: torch.save({"model": nn.Linear(2, 3)}, file), r"whole module .*weights_only=False\).state_dict\(\)"),
        (lambda: script(file), r"is a TorchScript program.*torch.jit.load\(FILE\).state_dict\(\)"),
        (
            lambda: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1"),
            "Git LFS.*git lfs pull",
        ),
        (lambda: file.write_bytes(b"\n<!DOCTYPE html><html>"), "is a web page, not weights"),
        (
            lambda: torch.save(torchvision.models.squeezenet1_1().state_dict(), file.with_stem("squeezenet1_1-abc")),
            "The file is of torchvision:squeezenet1_1: --model.name torchvision:squeezenet1_1",
        ),
    )
    for make, message in kinds:
        make()
        path = file if file.exists() else file.with_stem("squeezenet1_1-abc")
        with pytest.raises(WeightsError, match=message):
            load_classifier(Model("contrex:convnet", weights=path))
        path.unlink()


# --- transformers and open_clip -------------------------------------------------------------------------------------

TINY = {"num_labels": 3, "depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}


@pytest.fixture
def folder(tmp_path):
    """A repository of transformers: a small ResNet, its processor and its names."""
    transformers = pytest.importorskip("transformers", reason="contrex[transformers] is not installed")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(**TINY, id2label={0: "cat", 1: "dog", 2: "fox"})
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path / "net")
    transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.8).save_pretrained(tmp_path / "net")
    return tmp_path / "net", model


def test_transformers_networks_by_name(folder):
    path, model = folder
    found = contrex.load(f"hf:{path}", pretrained=True)
    assert (found.names, found.mean, found.image_size, found.short_side) == (("cat", "dog", "fox"), (0.5,) * 3, 64, 80)
    images = torch.rand(2, 3, 64, 64)
    why = contrex.GradCAM(found)(found.normalise(images), target="fox", contrast="cat")
    torch.testing.assert_close(why.logits, model.eval()(found.normalise(images)).logits.detach())
    bare = contrex.load(f"hf:{path}")
    assert bare.names == found.names
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ArgumentError, match=r"its image processor is not in .*models--.*load it with --pretrained"):
        load_classifier(Model(f"hf:{path}", pretrained=True), is_bare=True)
    by_kind = contrex.load("hf:resnet", depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, num_classes=5)
    assert contrex.GradCAM(by_kind)(images).logits.shape == (2, 5)
    shutil.rmtree(path)
    for name, kind, message in (
        ("hf:resnt", UnknownNameError, "Near it: .*resnet"),
        ("hf:no-one/nothing", ArgumentError, "its configuration is not in .*models--no-one--nothing.*--pretrained"),
        ("hf:gpt2", ArgumentError, "transformers has no image classifier of that kind"),
    ):
        with pytest.raises(kind, match=message):
            contrex.load(name)
    with pytest.raises(WeightsError, match="transformers cannot get the weights of hf:no-one/nothing"):
        contrex.load("hf:no-one/nothing", pretrained=True)


def test_a_class_for_each_text_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="contrex[transformers] is not installed")
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (tmp_path / "vocab.json").write_text(json.dumps({text: index for index, text in enumerate(known)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokenizer.save_pretrained(tmp_path)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**small, "vocab_size": len(known), "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 20}
    image = {**small, "image_size": 32, "patch_size": 8}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=8))
    model.save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sizes).save_pretrained(tmp_path)
    words = ("a tabby", "a dog")
    found = contrex.load(f"hf:{tmp_path}", pretrained=True, classes=words)
    images = found.normalise(torch.rand(2, 3, 32, 32))
    tokens = tokenizer(list(words), padding="max_length", max_length=20, return_tensors="pt")
    expected = model.eval()(pixel_values=images, **tokens).logits_per_image
    why = contrex.GradCAM(found)(images, target="a dog", contrast="a tabby")
    torch.testing.assert_close(why.logits, expected.detach())
    assert why.heatmap.shape == (2, 4, 4)
    assert (found.image_size, found.interpolation) == (32, "bicubic")


@pytest.mark.parametrize(
    ("does", "sizes"),
    [
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (224, 256),
        ),
        ({"size": {"height": 384, "width": 384}}, (384, 384)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384)),
        ({"size": 224, "resample": 3, "do_normalize": False}, (224, 224)),
    ],
)
def test_what_processors_do(does, sizes):
    known = view_of_processor({"resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], **does})
    assert (known["image_size"], known["short_side"]) == sizes
    assert known["interpolation"] == ("bicubic" if does.get("resample") == 3 else "bilinear")
    assert known["mean"] == ((0.0,) * 3 if "do_normalize" in does else (0.1, 0.2, 0.3))


class Tower(nn.Module):
    """A reader of images: four features, in a tuple with others."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3)), x


def test_a_class_for_each_text():
    torch.manual_seed(0)
    tower, texts = Tower(), torch.randn(3, 4)
    network = ZeroShot(tower, texts, torch.tensor(2.0), torch.tensor(-1.0), classes=("a", "b", "c"))
    images = torch.rand(2, 3, 9, 9)
    features = tower(images)[0]
    cosine = nn.functional.cosine_similarity(features[:, None], texts[None], dim=2)
    torch.testing.assert_close(network(images), cosine * torch.tensor(2.0).exp() - 1)
    classifier = Classifier(network, (0.0,) * 3, (1.0,) * 3, names=network.classes)
    assert contrex.GradCAM(classifier)(images, target="b", contrast="c").target.tolist() == [1, 1]
    with pytest.raises(ArgumentError, match=r"`classes` must be at least two texts, got \['a'\]"):
        ZeroShot(tower, texts[:1], torch.tensor(2.0), classes=["a"])


def test_open_clip_by_text():
    open_clip = pytest.importorskip("open_clip", reason="contrex[open_clip] is not installed")
    torch.manual_seed(0)
    words = ("a photo of a tabby", "a photo of a tiger cat")
    options = {"vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}, "text_cfg": {"layers": 1}}
    found = contrex.load("open_clip:ViT-B-32", classes=words, **options)
    assert (found.names, found.image_size, found.interpolation) == (words, 32, "bicubic")
    assert found.mean == open_clip.OPENAI_DATASET_MEAN
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    why = contrex.why(image, found, target=words[0], contrast=words[1])
    assert why.heatmap.shape == (1, 4, 4)
    assert "why a photo of a tabby rather than a photo of a tiger cat?" in repr(why)
    with pytest.raises(ArgumentError, match=r"`model.classes`: open_clip:ViT-B-32 compares pictures with texts"):
        contrex.load("open_clip:ViT-B-32")
    with pytest.raises(ArgumentError, match=r"ViT-B-16-SigLIP reads texts by files .*only --pretrained fetches"):
        contrex.load("open_clip:ViT-B-16-SigLIP", classes=words, **options)
    with pytest.raises(UnknownNameError, match=r"Near it: .*ViT-B-32"):
        contrex.load("open_clip:ViT-B-33", classes=words)


def test_what_is_not_installed_is_named(monkeypatch):
    for module, name in (("transformers", "hf:resnet"), ("open_clip", "open_clip:ViT-B-32")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ArgumentError, match=rf"pip install 'contrex\[{module}\]'"):
            load_classifier(Model(name))


# --- from the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def test_explaining_a_photo_with_pretrained_weights(cached, photo, capsys):
    words = ["explain", str(photo), "--model", "torchvision:squeezenet1_1", "--pretrained", "--side", "64"]
    output = ["--output", str(photo.with_name("why.png"))]
    assert main([*words, *output, "--target", "tabby", "--contrast", "tiger cat"]) == 0
    assert "why tabby rather than tiger cat?" in capsys.readouterr().out
    assert main([*words, *output, "--target", "cat"]) == 2
    assert "Near it: tabby cat, tiger cat, Persian cat, Siamese cat, Egyptian cat." in capsys.readouterr().err
    assert main([*words[:-3], "--classes", "a", "b"]) == 2
    assert "Or pass --run, or --pretrained for the library's own weights" in capsys.readouterr().err


def test_a_network_of_one_size_sees_the_square(tmp_path):
    torch.manual_seed(0)
    classifier = contrex.load("timm:test_vit", num_classes=3)
    seen = replace(classifier, image_size=160, short_side=180, interpolation="bicubic", names=("a", "b", "c"))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (190, 250, 3), dtype=np.uint8))
    square, logits = seen_by(NamedClassifier(seen, seen.names, 160), photo, 160)
    assert square.size == (160, 160)
    torch.testing.assert_close(logits, contrex.why(photo, seen).logits)
    other = replace(seen, network=ConvNet(3).eval())
    assert seen_by(NamedClassifier(other, seen.names, 160), photo, 160)[0].size == (211, 160)
    with pytest.raises((RuntimeError, AssertionError)):  # a square of another size: the network says why
        seen_by(NamedClassifier(seen, seen.names, 160), photo.resize((50, 50)), 50)


def test_names_or_a_file_of_them(tmp_path):
    weights = tmp_path / "w.pth"
    torch.save(ConvNet(2).state_dict(), weights)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for classes in (["cat", "dog"], [str(tmp_path / "names.txt")]):
        named = classifier_of(None, Model("contrex:convnet", weights=weights), classes)
        assert list(named.names) == ["cat", "dog"]


def test_data_are_resized_as_the_weights_ask(cached):
    found = contrex.load("torchvision:squeezenet1_1", pretrained=True)
    asked = as_seen_by(replace(found, image_size=288, short_side=300), Folder("photos"))
    assert (asked.image_size, asked.resize) == (288, 300)
    assert as_seen_by(replace(found, image_size=None), Folder("photos")) == Folder("photos")
    assert as_seen_by(found, Digits()) == Digits()


def test_exporting_pretrained_weights(cached, tmp_path, monkeypatch, capsys):
    _, state = cached
    monkeypatch.chdir(tmp_path)
    model = ["--model", "torchvision:squeezenet1_1"]
    assert main(["export", *model, "--pretrained", "--format", "safetensors"]) == 0
    card = json.loads((tmp_path / "squeezenet1_1.safetensors.json").read_text())
    assert (card["classes"][281], card["run"], card["input"]["resize_shorter_side"]) == ("tabby", None, 256)
    assert torch.equal(load_file("squeezenet1_1.safetensors")["features.0.weight"], state["features.0.weight"])
    refused = [
        (model, "nobody exports random weights"),
        ([], "name the folder of a run, or a --model"),
        ([*model, "--pretrained", "--checkpoint", "best"], "`checkpoint` best is for runs, and a --model has one file"),
    ]
    for words, message in refused:
        assert main(["export", *words, "--format", "safetensors"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_from_pretrained_weights_needs_them_only_once(cached, tmp_path, recwarn):
    recipe = cross_entropy()
    model = Model("torchvision:squeezenet1_1", pretrained=True, fresh=("classifier.1",))
    data = replace(recipe.data, num_train=8, num_val=4, num_test=4)
    training = replace(recipe.training, epochs=1, batch_size=4, device="cpu")
    train(replace(recipe, data=data, model=model, training=training), tmp_path / "run")
    cached[0].unlink()
    saved, classifier, names = load_trained(tmp_path / "run")
    assert (saved.model, classifier.mean, len(names)) == (model, IMAGENET_MEAN, 10)
