"""Fine-tuning from checkpoints as self-supervised training leaves them, through the real command."""

import argparse
import pathlib
import re

import numpy as np
import pytest
import torch
from torch import nn

from contrex.cli import main
from contrex.models import load_classifier
from contrex.recipes import RECIPES
from contrex.training import load_trained
from sampling import crossed

MODEL = RECIPES["digits_10_percent_cgc"]().model
SMALL = (
    *("--data.num-train", "120", "--data.num-val", "10", "--data.num-test", "10", "--training.device", "cpu"),
    *("--training.epochs", "1", "--training.batch-size", "8", "--labelled.unlabelled-batch-size", "16"),
    *("--no-evaluate", "--evaluation.device", "cpu"),
)
"""One step on 8 of 12 labelled digits and 16 of the others."""


def under(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def encoder(seed):
    """The weights of an encoder whose batch norms have seen images."""
    torch.manual_seed(seed)
    network = load_classifier(MODEL, num_classes=10).network.train()
    with torch.no_grad():
        network(torch.rand(8, 3, 64, 64))
    return {key: value for key, value in network.state_dict().items() if not key.startswith("fc")}


def beside(parameters):
    """What scripts save beside the weights: their optimiser, their options, numbers of numpy, random states."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    args = argparse.Namespace(arch="convnet", lr=0.3, output=pathlib.Path("out"), local_crops=[2, 6])
    return {
        "optimizer": optimizer.state_dict(),
        "args": args,
        "epoch": 300,
        "best_acc1": np.float64(0.5),
        "random": np.random.default_rng(0).integers(9, size=3),
        "fp16_scaler": None,
    }


ENCODER, OTHER = encoder(1), encoder(2)
MLP = {"0.weight": torch.ones(2, 128), "1.running_mean": torch.ones(2), "3.weight": torch.ones(2, 2)}
SWAV = {**ENCODER, **under("projection_head.", MLP), **under("prototypes.", {"prototypes0.weight": torch.ones(3, 2)})}
MOCO = {**under("encoder_q.", {**ENCODER, **under("fc.", MLP)}), **under("encoder_k.", {**OTHER, **under("fc.", MLP)})}
QUEUE = {"queue": torch.ones(2, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
V3 = {
    **under("base_encoder.", {**ENCODER, **under("head.", MLP)}),
    **under("momentum_encoder.", {**OTHER, **under("head.", MLP)}),
    **under("predictor.", MLP),
}
DINO_HEAD = under("head.", {"mlp.0.weight": torch.ones(2, 128), "last_layer.weight_g": torch.ones(2, 1)})
DINO = {
    "student": under("module.", {**under("backbone.", OTHER), **DINO_HEAD}),
    "teacher": {**under("backbone.", ENCODER), **DINO_HEAD},
    "dino_loss": {"center": torch.ones(1, 2)},
}
FILES = {
    "swav": (under("module.", SWAV), "projection_head, prototypes"),
    "swav, with optimizer": ({"state_dict": under("module.", SWAV)}, "projection_head, prototypes"),
    "moco": ({"state_dict": under("module.", {**MOCO, **QUEUE})}, "encoder_k, fc, queue, queue_ptr"),
    "moco, v3": ({"state_dict": under("module.", V3)}, "head, momentum_encoder, predictor"),
    "dino": (DINO, "head"),
    "dino-student": ({**DINO, "teacher": DINO["student"], "student": DINO["teacher"]}, "head"),
    "lightning": ({"state_dict": under("model.", ENCODER), "hyper_parameters": {"lr": 0.1}}, None),
    "plain, of timm": ({"state_dict": ENCODER, "state_dict_ema": OTHER, "arch": "convnet"}, None),
}


@pytest.mark.parametrize(("kind", "zipped"), crossed(FILES, [True, False], one_in=5))
def test_a_probe_on_a_checkpoint_has_its_encoder(kind, zipped, tmp_path, capsys):
    """All that is frozen is what the file has, bit for bit, and the run says what it left out; files of before torch
    1.6 are no zip archives."""
    content, left_out = FILES[kind]
    if "state_dict" in content or "teacher" in content:
        content = {**content, **beside([nn.Parameter(torch.ones(2))])}
    file, run = tmp_path / "checkpoint.pth.tar", tmp_path / "run"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    options = ["--model.weights", str(file), "--model.layout", kind.partition(",")[0], "--model.fresh", "fc"]
    probe = ["--training.freeze", "trunk", "--optimizer.head-lr", "0.5", "--folder", str(run)]
    assert main(["train", "digits_10_percent_cgc", *SMALL, *options, *probe]) == 0
    said = capsys.readouterr().err
    assert (f"left out of {file}: {left_out}\n" in said) == (left_out is not None)
    found = load_trained(run)[1].network.state_dict()
    for name, value in ENCODER.items():
        assert torch.equal(found[name], value), name
    fresh = load_classifier(MODEL, num_classes=10).network.state_dict()
    assert not torch.equal(found["fc.weight"], fresh["fc.weight"])


def test_all_of_it_is_tuned_from_a_checkpoint_and_resumed_without_the_file(tmp_path, capsys):
    file, run = tmp_path / "swav.pth.tar", tmp_path / "run"
    torch.save(FILES["swav"][0], file)
    options = ["--model.weights", str(file), "--model.layout", "swav", "--model.fresh", "fc", "--folder", str(run)]
    rates = ["--optimizer.lr", "0.002", "--optimizer.head-lr", "0.5"]
    assert main(["train", "digits_10_percent_cgc", *SMALL, *options, *rates]) == 0
    moved = load_trained(run)[1].network.state_dict()
    change = {name: (moved[name] - value).abs().max().item() for name, value in ENCODER.items() if "weight" in name}
    assert all(0 < size < 0.1 for size in change.values())
    file.unlink()
    assert main(["train", "digits_10_percent_cgc", *SMALL, *options, *rates, "--resume"]) == 0
    assert capsys.readouterr().err.count("left out of") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.layout", "swav"], r"2 missing \(fc.bias, fc.weight\).* name modules in `model.fresh`"),
        (["--model.fresh", "fc"], r"left over \(projection_head.0.weight.* It looks like `model.layout` swav"),
        (["--model.layout", "moco", "--model.fresh", "fc"], r"no key starts so; .* It looks like the layout swav"),
        (["--model.layout", "dino", "--model.fresh", "fc"], r"under backbone., and no key .* like the layout swav"),
    ],
)
def test_what_a_user_forgets_is_named(words, message, tmp_path, capsys):
    file = tmp_path / "swav.pth.tar"
    torch.save(FILES["swav"][0], file)
    options = [*SMALL, "--model.weights", str(file), *words, "--folder", str(tmp_path / "run")]
    assert main(["train", "digits_10_percent_cgc", *options]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
