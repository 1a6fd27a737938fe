import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, DataError, UnknownNameError, WeightsError
from contrex.models import build_network, cifar_stem, class_index, class_names, eval_mode, load_classifier
from contrex.models.classes import check_order
from contrex.models.convnet import ConvNet
from contrex.models.layouts import encoder_weights
from contrex.models.load import load_weights, read_state_dict
from contrex.settings import Model
from sampling import sampled

FOUND = {
    "torchvision:resnet18": ("layer4", 512),
    "torchvision:vgg11_bn": ("features", 512),
    "torchvision:alexnet": ("features", 256),
    "torchvision:mobilenet_v2": ("features", 1280),
    "torchvision:densenet121": ("features", 1024),
    "torchvision:squeezenet1_1": ("features", 512),
    "torchvision:efficientnet_b0": ("features", 1280),
    "torchvision:shufflenet_v2_x0_5": ("conv5", 1024),
    "timm:resnet18": ("layer4", 512),
    "timm:mobilenetv2_100": ("bn2", 1280),
    "timm:efficientnet_b0": ("bn2", 1280),
    "timm:convnext_atto": ("stages", 320),
    "contrex:convnet": ("features", 128),
}


SLOW = ("vgg", "efficientnet", "densenet", "alexnet")


@sampled(one_in=2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name.partition(":")[2].startswith(SLOW) else name for name in FOUND],
)
def test_the_layer_is_found(name):
    """The map before the classifier, in torchvision's, timm's and our own CNNs."""
    network = build_network(name, {}, num_classes=10).eval()
    explainer = contrex.GradCAM(network)
    images = torch.randn(1, 3, 128, 96)
    why = explainer(images, target=3)
    layer, channels = FOUND[name]
    assert explainer.layer == layer
    assert why.heatmap.shape[1] > why.heatmap.shape[2] > 1
    kept = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *_: kept.append(_[2]))
    network(images)
    handle.remove()
    assert kept[0].shape[1] == channels


def test_convnet_has_an_eight_by_eight_map():
    network = ConvNet(10)
    assert network.features(torch.zeros(2, 3, 64, 64)).shape == (2, 128, 8, 8)
    with pytest.raises(ArgumentError, match="`widths` and `strides` of one length"):
        ConvNet(10, widths=(8, 8), strides=(1,))


def test_networks_are_built_with_options():
    network = build_network(
        "contrex:convnet", {"widths": "(4, 6)", "strides": "(2, 2)", "pointwise": "7"}, num_classes=3
    )
    assert network.fc.weight.shape == (3, 7)
    same = build_network("timm:mobilenetv2_035", {"pad_type": "same"}, num_classes=5)
    assert same.get_classifier().out_features == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18",
            "`model.name` must be one of contrex:NAME, .*timm:NAME, hf:NAME, open_clip:NAME; got 'resnet18'",
        ),
        ("torchvison:resnet18", "got 'torchvison:resnet18'. Did you mean 'torchvision:NAME'"),
        ("torchvision:resnet81", "got 'resnet81'. Near it: resnet18"),
        ("timm:mobilenetv2_10", "Near it: .*mobilenetv2_100"),
        ("contrex:convnext", "got 'convnext'. Did you mean 'convnet'"),
    ],
)
def test_unknown_networks_name_the_nearest(name, message):
    with pytest.raises(UnknownNameError, match=message):
        build_network(name, {})


def test_options_that_do_not_fit():
    with pytest.raises(ArgumentError, match=r"`model.options` {'wdths': '3'} do not fit contrex:convnet"):
        build_network("contrex:convnet", {"wdths": "3"})


def save(tmp_path, state, name="w.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_weights_load_whole(tmp_path):
    source, target = ConvNet(3), ConvNet(3)
    for state in (
        source.state_dict(),
        {f"module.{k}": v for k, v in source.state_dict().items()},
        {"state_dict": source.state_dict(), "epoch": 3},
        {"model": source.state_dict()},
    ):
        nn.init.zeros_(target.fc.weight)
        load_weights(target, save(tmp_path, state))
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_weights_from_safetensors(tmp_path):
    from safetensors.torch import save_file

    source, target = ConvNet(3), ConvNet(3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(source.fc.weight, target.fc.weight)


def test_every_key_is_accounted_for(tmp_path):
    source = ConvNet(3).state_dict()
    fewer = {k: v for k, v in source.items() if k != "fc.weight"}
    with pytest.raises(WeightsError, match=r"does not fit ConvNet: 1 missing \(fc.weight\)"):
        load_weights(ConvNet(3), save(tmp_path, fewer))
    with pytest.raises(WeightsError, match=r"1 left over \(head.weight\)"):
        load_weights(ConvNet(3), save(tmp_path, {**source, "head.weight": torch.zeros(1)}))
    with pytest.raises(WeightsError, match=r"2 of another shape \(fc.bias: file \[3\], network \[5\]\)"):
        load_weights(ConvNet(5), save(tmp_path, source))


@pytest.mark.parametrize(
    "name",
    [
        "contrex:convnet",
        "timm:vit_tiny_patch16_224",
        pytest.param("torchvision:squeezenet1_1", marks=pytest.mark.slow),
    ],
)
def test_weights_that_a_file_replaces_are_not_drawn(name, tmp_path):
    torch.manual_seed(1)
    file = tmp_path / "weights.pth"
    torch.save(build_network(name, {}, num_classes=7).state_dict(), file)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    network = load_classifier(Model(name, weights=file)).network
    assert torch.random.get_rng_state().equal(before)
    drawn = load_classifier(Model(name, weights=file), draws=True).network
    assert not torch.random.get_rng_state().equal(before)
    for one, other in ((network, drawn), (drawn, network)):
        tensors = dict(other.named_parameters()) | dict(other.named_buffers())
        for key, value in [*one.named_parameters(), *one.named_buffers()]:
            assert value.equal(tensors[key]), key


def test_fresh_modules_keep_their_initialisation(tmp_path):
    path, network = save(tmp_path, ConvNet(3).state_dict()), ConvNet(5)
    before = network.fc.weight.clone()
    load_weights(network, path, fresh=("fc",))
    assert torch.equal(network.fc.weight, before)
    assert torch.equal(network.features[0][0].weight, read_state_dict(path)["features.0.0.weight"])
    with pytest.raises(UnknownNameError, match=r"`model.fresh` must be one of"):
        load_weights(network, path, fresh=("fcc",))
    with pytest.raises(ArgumentError, match="means something only with `weights`"):
        load_classifier(Model("contrex:convnet", fresh=("fc",)))


# --- checkpoints of self-supervised training ------------------------------------------------------------------------


def wrapped(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


ENCODER = {key: value for key, value in ConvNet(3).state_dict().items() if not key.startswith("fc")}
HEAD, ONE = {"0.weight": torch.zeros(2, 2), "2.bias": torch.zeros(2)}, torch.zeros(1)
CHECKPOINTS = {
    "swav": (
        wrapped({**ENCODER, **wrapped(HEAD, "projection_head."), "prototypes.weight": ONE}, "module."),
        ("projection_head", "prototypes"),
    ),
    "moco": (
        {
            "arch": "resnet50",
            "epoch": 200,
            "state_dict": wrapped(
                {
                    **wrapped({**ENCODER, **wrapped(HEAD, "fc.")}, "encoder_q."),
                    **wrapped(ENCODER, "encoder_k."),
                    "queue": ONE,
                    "queue_ptr": ONE,
                },
                "module.",
            ),
        },
        ("encoder_k", "fc", "queue", "queue_ptr"),
    ),
    "moco v3": (
        {
            "state_dict": wrapped(
                {
                    **wrapped({**ENCODER, **wrapped(HEAD, "head.")}, "base_encoder."),
                    **wrapped(ENCODER, "momentum_encoder."),
                    "predictor.0.weight": ONE,
                },
                "module.",
            )
        },
        ("head", "momentum_encoder", "predictor"),
    ),
    "dino": (
        {
            "student": wrapped(wrapped({key: value + 1 for key, value in ENCODER.items()}, "backbone."), "module."),
            "teacher": {**wrapped(ENCODER, "backbone."), **wrapped(HEAD, "head.mlp.")},
            "optimizer": {"param_groups": [{"lr": 0.1}]},
            "args": argparse.Namespace(arch="resnet50", lr=0.3),
            "epoch": 300,
        },
        ("head",),
    ),
    "lightning": ({"state_dict": wrapped(ENCODER, "model."), "pytorch-lightning_version": "2.5.0"}, ()),
}


@sampled(one_in=2)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_self_supervised_checkpoints_load_whole(kind, tmp_path):
    content, left_out = CHECKPOINTS[kind]
    model = Model("contrex:convnet", weights=save(tmp_path, content), layout=kind.split()[0], fresh=("fc",))
    found = load_classifier(model, num_classes=7)
    assert found.left_out == left_out
    own = found.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in ENCODER.items())
    with pytest.raises(WeightsError, match=r"2 missing \(fc.bias, fc.weight\).* name modules in `model.fresh`"):
        load_classifier(replace(model, fresh=()), num_classes=7)
    with pytest.raises(WeightsError, match=rf"It looks like `model.layout` {model.layout}\."):
        load_classifier(replace(model, layout="plain"), num_classes=7)


def test_the_student_of_dino_is_another_network(tmp_path):
    path = save(tmp_path, CHECKPOINTS["dino"][0])
    model = Model("contrex:convnet", weights=path, layout="dino-student", fresh=("fc",))
    found = load_classifier(model, num_classes=7)
    assert torch.equal(found.network.features[0][0].weight, ENCODER["features.0.0.weight"] + 1)


def test_a_layout_accounts_for_every_key(tmp_path):
    def refused(layout, content, message):
        model = Model("contrex:convnet", weights=save(tmp_path, content), layout=layout, fresh=("fc",))
        with pytest.raises(WeightsError, match=message):
            load_classifier(model, num_classes=7)

    lightning = wrapped(ENCODER, "model.")
    refused(
        "lightning", {"state_dict": {**lightning, "loss.weight": ONE}}, "under model. and does not know loss.weight:"
    )
    refused("swav", {**CHECKPOINTS["swav"][0], "module.teacher.weight": ONE}, r"1 left over \(teacher.weight\)")
    refused("moco", {"state_dict": {**wrapped(ENCODER, "encoder_q."), "encoder_q.x": ONE}}, r"1 left over \(x\)")
    refused("moco", CHECKPOINTS["swav"][0], "under encoder_q. or base_encoder., and no key .* like the layout swav")
    refused("dino", {"state_dict": lightning}, "does not hold a state_dict")
    with pytest.raises(UnknownNameError, match=r"`model.layout` must be one of plain, swav, .*; got 'swaw'. Did you"):
        encoder_weights(ENCODER, "swaw")
    with pytest.raises(ArgumentError, match="`layout` swav means something only with `weights`"):
        load_classifier(Model("contrex:convnet", layout="swav"))


def test_weights_that_are_not_weights(tmp_path):
    with pytest.raises(WeightsError, match="is not a file"):
        read_state_dict(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"cannot be read as tensors only"):
        read_state_dict(tmp_path / "text.pth")
    with pytest.raises(WeightsError, match="does not hold a state_dict"):
        read_state_dict(save(tmp_path, [1, 2]))


class Payload:
    """Pickled as a call, which is made when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_weights_file_never_runs_code(tmp_path):
    """Neither in the place of a weight nor beside them; what torch does not know to be bad does nothing."""
    calls = (
        Payload(open, str(tmp_path / "ran"), "w"),
        Payload(pathlib.Path.touch, tmp_path / "ran"),
        Payload(shutil.copy, __file__, str(tmp_path / "ran")),
        Payload(os.mkdir, str(tmp_path / "ran")),
        Payload(eval, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        Payload(subprocess.call, ["touch", str(tmp_path / "ran")]),
    )
    for number, payload in enumerate(calls):
        torch.save({"fc.weight": payload}, tmp_path / "evil.pth")
        with pytest.raises(WeightsError, match=r"does not hold a state_dict|it calls \S+, and nothing .* is executed"):
            read_state_dict(tmp_path / "evil.pth")
        torch.save({"state_dict": {"fc.weight": ONE}, "beside": payload}, tmp_path / "evil.pth")
        with contextlib.suppress(WeightsError):
            assert list(read_state_dict(tmp_path / "evil.pth")) == ["fc.weight"]
        assert not (tmp_path / "ran").exists(), number


class Options(dict):
    """As the options of Lightning are."""


def test_what_cannot_be_passed_over_is_named(tmp_path):
    path = save(tmp_path, {"state_dict": {"fc.weight": ONE}, "hyper_parameters": Options(lr=0.1)})
    with pytest.raises(
        WeightsError, match=r"dictionary or list of a kind of its own .*\(\S*Options\), .* If you trust"
    ):
        read_state_dict(path)


def test_normalisation_takes_bytes_and_fractions():
    classifier = load_classifier(Model("contrex:convnet", mean=(0.5,), std=(0.25,)), num_classes=3)
    image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    torch.testing.assert_close(classifier.normalise(image)[0, 0, 0], torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(classifier.normalise(image / 255), classifier.normalise(image))
    with pytest.raises(ArgumentError, match=r"`model.mean` must be one value or three"):
        load_classifier(Model("contrex:convnet", mean=(0.5, 0.5)))
    for wrong in ({"mean": (123.0,)}, {"std": (58.0,)}, {"mean": (-0.1,)}):
        with pytest.raises(ArgumentError, match=r"is not that of pixel values in \[0, 1\]: divide by 255"):
            load_classifier(Model("contrex:convnet", **wrong))
    with pytest.raises(ArgumentError, match=r"std > 0"):
        load_classifier(Model("contrex:convnet", std=(0.0,)))


def test_classes_by_name():
    names = class_names(1000)
    assert class_index("tabby", names) == 281
    assert class_index("Tiger Cat", names) == 282
    assert class_index("282", names) == 282
    assert class_names(3) == ("0", "1", "2")
    assert class_index("2", class_names(3)) == 2
    with pytest.raises(UnknownNameError, match=r"`target` must be one of .* names; got 'tabbi'. Near it: tabby"):
        class_index("tabbi", names)
    with pytest.raises(ArgumentError, match="names several classes"):
        class_index("crane", ["crane, bird", "crane"])
    with pytest.raises(ArgumentError, match="between 0 and 999"):
        class_index("1000", names)


def test_classes_at_other_places_are_refused():
    check_order(("cat", "dog", "cow"), ("cat", "dog", "hen"), "photos")
    check_order(("crane", "crane", "dog"), ("hen", "crane", "dog"), "photos")
    check_order((), ("cat", "dog"), "photos")
    with pytest.raises(
        DataError, match=r"photos has 'cow' as class 1, the network as class 2, so labels would be read"
    ):
        check_order(("a tabby", "dog", "cow"), ("cat", "cow", "hen"), "photos")


def test_eval_mode_restores_each_module():
    network = ConvNet(3).train()
    network.features[1].eval()
    before = [m.training for m in network.modules()]

    def fail():
        with eval_mode(network):
            assert not any(m.training for m in network.modules())
            raise ValueError("out")

    with pytest.raises(ValueError, match="out"):
        fail()
    assert [m.training for m in network.modules()] == before


@pytest.mark.slow
def test_the_number_of_classes_is_read_from_the_weights_file(tmp_path):
    source = build_network("torchvision:resnet18", {}, num_classes=37)
    path = save(tmp_path, {f"_orig_mod.module.{key}": value for key, value in source.state_dict().items()})
    found = load_classifier(Model("torchvision:resnet18", weights=path)).network
    assert torch.equal(found.fc.weight, source.fc.weight)
    with pytest.raises(WeightsError, match=r"file \[37\], network \[5\]\); check `model.name` and `model.num_classes`"):
        load_classifier(Model("torchvision:resnet18", num_classes=5, weights=path))


@pytest.mark.parametrize("name", ["torchvision:resnet18", pytest.param("timm:resnet18", marks=pytest.mark.slow)])
def test_the_stem_of_small_images(name):
    """The stride is 8 instead of 32, and of the weights only the first convolution's change."""
    plain, small = (build_network(name, {}, num_classes=3, stem=stem).eval() for stem in ("built-in", "cifar"))
    images = torch.randn(1, 3, 32, 32)
    grids = []
    for network in (plain, small):
        handle = network.layer4.register_forward_hook(lambda *_: grids.append(_[2].shape[2:]))
        assert network(images).shape == (1, 3)
        handle.remove()
    assert grids == [(1, 1), (4, 4)]
    before, after = plain.state_dict(), small.state_dict()
    assert list(before) == list(after)
    assert [key for key in before if before[key].shape != after[key].shape] == ["conv1.weight"]
    assert after["conv1.weight"].shape == (64, 3, 3, 3)


@pytest.mark.slow
def test_the_stem_keeps_channels_bias_and_type_and_draws_as_resnets_do():
    network = build_network("torchvision:resnet18", {}).double()
    network.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3).double()
    assert cifar_stem(network) is network
    conv = network.conv1
    assert (conv.in_channels, conv.stride, conv.padding, conv.weight.dtype) == (4, (1, 1), (1, 1), torch.float64)
    assert not conv.bias.any()
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert torch.equal(build_again("cifar").conv1.weight, build_again("cifar").conv1.weight)
    assert torch.equal(build_again("cifar").layer4[1].conv2.weight, build_again("built-in").layer4[1].conv2.weight)


def build_again(stem):
    torch.manual_seed(3)
    return build_network("torchvision:resnet18", {}, stem=stem)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("torchvision:vgg11", "VGG with `conv1` NoneType"),
        ("torchvision:googlenet", "GoogLeNet with `conv1` BasicConv2d"),
        ("timm:resnet18d", "ResNet with `conv1` Sequential"),
        ("contrex:convnet", "ConvNet with `conv1` NoneType"),
    ],
)
def test_the_stem_is_for_resnets(name, got):
    with torch.device("meta"), pytest.raises(ArgumentError, match=f"the stem 'cifar' is .*, got {got}.*`model.stem`"):
        build_network(name, {"init_weights": "False"} if "googlenet" in name else {}, stem="cifar")


def test_the_stem_is_not_changed_twice_and_has_a_known_name():
    network = build_again("cifar")
    with pytest.raises(ArgumentError, match="`maxpool` Identity"):
        cifar_stem(network)
    alike = nn.Module()
    alike.conv1, alike.maxpool = nn.Conv2d(3, 4, 7, stride=2), nn.MaxPool2d(2)
    with pytest.raises(ArgumentError, match="got Module with"):
        cifar_stem(alike)
    network.maxpool = nn.MaxPool2d(2)
    with pytest.raises(ArgumentError, match=r"`conv1` \(3, 3\), stride \(1, 1\)"):
        cifar_stem(network)
    with pytest.raises(
        UnknownNameError, match=r"`model.stem` must be one of built-in, cifar; got 'cifra'. Did you mean"
    ):
        build_network("torchvision:resnet18", {}, stem="cifra")


@pytest.mark.slow
def test_a_classifier_with_the_stem_takes_its_own_weights_and_the_others_without_conv1(tmp_path):
    own, other = build_again("cifar"), build_again("built-in")
    own.fc = nn.Linear(512, 3)
    path = save(tmp_path, own.state_dict())
    found = load_classifier(Model("torchvision:resnet18", stem="cifar", weights=path)).network
    assert torch.equal(found.conv1.weight, own.conv1.weight)
    assert found.fc.out_features == 3
    path = save(tmp_path, other.state_dict())
    with pytest.raises(WeightsError, match=r"1 of another shape \(conv1.weight: file \[64, 3, 7, 7\]"):
        load_classifier(Model("torchvision:resnet18", stem="cifar", weights=path))
    found = load_classifier(Model("torchvision:resnet18", stem="cifar", weights=path, fresh=("conv1",))).network
    assert found.conv1.kernel_size == (3, 3)
    assert torch.equal(found.layer1[0].conv1.weight, other.layer1[0].conv1.weight)
