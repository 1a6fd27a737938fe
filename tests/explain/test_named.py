"""Explainers by name, with their options."""

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError, UnknownNameError
from contrex.explain.named import (
    build_explainer,
    check_explainer,
    checked_options,
    default_options,
    explainer_class,
    options_in_words,
)
from contrex.settings import Evaluation
from contrex.settings.explainer import read_explainer
from explain.networks import images
from explain.networks import network as make_network
from sampling import sampled

IMAGES = images(2)


@pytest.fixture
def network():
    return make_network("mlp")


MY_CAM = """
from contrex import ActivationExplainer

class MyCAM(ActivationExplainer):
    def __init__(self, model, layer=None, *, power: int = 1):
        super().__init__(model, layer)
        self.power = power

    def combine(self, activation, gradient):
        return (activation * gradient).sum(1) ** self.power
"""


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("rise(num_masks=20, seed=3)", lambda model: contrex.RISE(model, num_masks=20, seed=3)),
        ("lrp(rules='epsilon')", lambda model: contrex.LRP(model, rules="epsilon")),
        ("integrated_gradients(steps=3, baseline=(0.1, 0.2, 0.3))",
         lambda model: contrex.IntegratedGradients(model, steps=3, baseline=torch.tensor([0.1, 0.2, 0.3]))),
        ("occlusion(window=(4, 5), stride=2)", lambda model: contrex.Occlusion(model, window=(4, 5), stride=2)),
        ("smooth_grad(noise=0, num_samples=2)", lambda model: contrex.SmoothGrad(model, noise=0.0, num_samples=2)),
    ],
)  # fmt: skip
def test_options_reach_the_explainer(network, text, made):
    found = build_explainer(network, text)(IMAGES).heatmap
    assert torch.equal(found, made(network)(IMAGES).heatmap)
    assert not torch.equal(found, build_explainer(network, read_explainer(text).name)(IMAGES).heatmap)


def test_a_layer_is_an_option_or_an_argument(network):
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    by_option = build_explainer(network, f"grad_cam(layer={names[0]!r})")(IMAGES)
    assert torch.equal(by_option.heatmap, build_explainer(network, "grad_cam", names[0])(IMAGES).heatmap)
    with pytest.raises(ArgumentError, match="both name a layer: give one of them"):
        build_explainer(network, f"grad_cam(layer={names[0]!r})", names[0])
    with pytest.raises(ArgumentError, match="`layer` 'x' means nothing to rise, which explains the input"):
        build_explainer(network, "rise(seed=1)", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rise(num_mask=3)", "option of rise must be one of num_masks, .*; got 'num_mask'. Did you mean 'num_masks'"),
        ("rise(num_masks='3')", "option `num_masks` of rise must be a whole number; got '3'"),
        ("rise(num_masks=True)", "option `num_masks` of rise must be a whole number; got True"),
        ("rise(batch_size=2.5)", "option `batch_size` of rise must be a whole number or None; got 2.5"),
        ("rise(keep=1.5)", "`keep` must be a probability between 0 and 1, got 1.5"),
        (
            "occlusion(window=(1, 2, 3, 4))",
            r"`window` of occlusion must be None or .* \(a whole number, a whole number\); got",
        ),
        (
            "score_cam(variant='other')",
            "option `variant` of score_cam must be 'paper' or 'published-code'; got 'other'",
        ),
        ("integrated_gradients(baseline='x')", "must be a number or numbers in a list; got 'x'"),
        ("gradient(sign=1)", "gradient has no options, got `sign`"),
        ("lrp(rules='z')", "'z'"),
        ("grad_kam(layer='x')", "`explainer` must be one of .*; got 'grad_kam'. Near it: .*grad_cam"),
    ],
)
def test_what_does_not_fit_is_refused_without_a_model(text, message):
    with pytest.raises(ArgumentError, match=message):
        check_explainer(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rise(3)", "each option needs its name"),
        ("rise(num_masks)", "each option needs its name"),
        ("rise(num_masks=n)", "num_masks=n is no literal"),
        ("rise(num_masks=print('x'))", "num_masks=print.'x'. is no literal"),
        ("rise(a=1, a=2)", "'a' is given twice"),
        ("rise(**{})", "stands for no option"),
        ("rise(num_masks=", "it is no name with options"),
        ("rise(num_masks=1))", "unmatched"),
        ("rise(a=1)(b=2)", "each option needs its name|it is no name"),
    ],
)
def test_what_is_no_name_with_options_is_refused_when_a_recipe_is_made(text, message):
    with pytest.raises(ArgumentError, match=f"`evaluation.explainer` must be a name, .*{message}"):
        Evaluation(explainer=text)


def test_a_class_from_a_file_has_options(network, tmp_path):
    (tmp_path / "a (1)").mkdir()
    file = tmp_path / "a (1)" / "mine.py"
    file.write_text(MY_CAM)
    text = f"{file}:MyCAM(power=2)"
    assert build_explainer(network, text).power == 2
    assert options_in_words(text) == "power=2"
    with pytest.raises(ArgumentError, match=r"option `power` of .*MyCAM must be a whole number; got 'x'"):
        build_explainer(network, f"{file}:MyCAM(power='x')")
    with pytest.raises(UnknownNameError, match="Did you mean 'power'"):
        build_explainer(network, f"{file}:MyCAM(powr=2)")
    with pytest.raises(ArgumentError, match="is no subclass of contrex"):
        explainer_class("torch.nn:Linear")


def test_an_installed_package_adds_explainers(monkeypatch):
    monkeypatch.setattr("contrex.outside.installed", lambda group: {"mine": "contrex.explain.input.gradient:Gradient"}
                        if group == "explainers" else {})  # fmt: skip
    assert explainer_class("mine") is contrex.Gradient


def test_captums_options_are_given_in_the_text(network):
    pytest.importorskip("captum")
    text = "captum:Occlusion(sliding_window_shapes=(3, 4, 4))"
    made = contrex.Captum(network, "Occlusion", sliding_window_shapes=(3, 4, 4))
    assert torch.equal(build_explainer(network, text)(IMAGES).heatmap, made(IMAGES).heatmap)
    with pytest.raises(ArgumentError, match="captum's Occlusion needs `sliding_window_shapes`"):
        check_explainer("captum:Occlusion")


def test_every_explainer_says_its_name_and_its_options():
    assert list(contrex.EXPLAINERS)[:3] == ["grad_cam", "hires_cam", "cam"]
    for name, kind in contrex.EXPLAINERS.items():
        assert kind.name == name
        given = ", ".join(f"{option}={value!r}" for option, value in default_options(kind).items())
        assert checked_options(f"{name}({given})").keys() == default_options(kind).keys()
        check_explainer(f"{name}({given})" if "layer" not in given else name)
    assert default_options(contrex.RISE) == {"num_masks": 1000, "cells": 7, "keep": 0.5, "seed": 0, "batch_size": None}
