"""Metrics that change images ask the model through one object, in short or in full."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from contrex.devices import images_at_once
from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics import (
    Answers,
    deletion_curve,
    fgsm,
    fgsm_direction,
    gradient_sign_curves,
    infidelity,
    insertion_curve,
    kept_probabilities,
    masked_relative_probability,
)
from contrex.metrics.probing import check_finite, check_no_nan
from contrex.models import Classifier
from sampling import sampled

MAPS = torch.linspace(-1, 1, 4 * 2 * 30).view(4, 2, 5, 6)
SALIENCY = MAPS[:, 0]
LABELS, TOP2 = torch.tensor([0, 2, 1, 0]), torch.tensor([[0, 1], [2, 1], [1, 0], [0, 2]])
PIXELS = {"std": 1.0, "lower": -9.0, "upper": 9.0}
CALLS = {
    insertion_curve: ((SALIENCY,), {"step": 7}),
    deletion_curve: ((SALIENCY,), {"step": 7}),
    kept_probabilities: ((SALIENCY,), {}),
    infidelity: ((SALIENCY,), {"num_samples": 2, "seeds": [1, 2, 3, 4]}),
    masked_relative_probability: ((MAPS, MAPS.flip(2)), {"top2": TOP2, "threshold": 0}),
    gradient_sign_curves: ((LABELS, {"phi": torch.ones(4, 2, 5, 6)}, [0.1]), {"clamp": False}),
    fgsm: ((LABELS,), {"epsilon": 0.1, **PIXELS}),
    fgsm_direction: ((LABELS,), {}),
}
WITHOUT_TARGET = (masked_relative_probability, fgsm, fgsm_direction)


class Counting(nn.Module):
    """A small classifier that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 3))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


@pytest.fixture
def model():
    return Counting().train()


@pytest.fixture
def images():
    return torch.randn(4, 2, 5, 6)


def tensors(found):
    if isinstance(found, torch.Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else vars(found).values()
    return [tensor for part in parts for tensor in tensors(part)]


@sampled(one_in=3)
@pytest.mark.parametrize("function", CALLS)
def test_in_short_is_in_full(function, model, images):
    args, options = CALLS[function]
    given = {"batch_size": 3}
    if function not in WITHOUT_TARGET:
        given["target"] = torch.tensor([2, 2, 1, 0])
    full = tensors(function(Answers(model, images, **given), *args, **options))
    for found in (
        function(*args, answers=Answers(model, images, **given), **options),
        function(model, images, *args, **given, **options),
        function(model, *args, images=images, **given, **options),
        function(*args, model=model, images=images, **given, **options),
    ):
        for one, other in zip(tensors(found), full, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("function", CALLS)
def test_every_such_function_has_few_parameters(function):
    assert next(iter(inspect.signature(function).parameters)) == "answers"
    assert len(inspect.signature(function).parameters) <= 8


def test_several_metrics_share_the_logits_of_the_images(model, images):
    answers = Answers(model, images)
    insertion_curve(answers, SALIENCY, step=10)
    deletion_curve(answers, SALIENCY, step=10)
    assert sum(model.sizes) == 4 * (1 + 3 + 3)
    assert not answers.logits.is_inference()
    assert not answers.logits.requires_grad


def test_what_is_asked(model, images):
    with torch.no_grad():
        logits = model.eval()(images)
    answers = Answers(model.train(), images)
    torch.testing.assert_close(answers.logits, logits)
    assert answers.target.equal(logits.argmax(1))
    torch.testing.assert_close(answers.whole("logit"), logits.amax(1))
    torch.testing.assert_close(answers.whole(), logits.softmax(1).amax(1))
    index = torch.tensor([2, 0, 2])
    with answers.session():
        torch.testing.assert_close(answers.of(images[index], index), answers.whole()[index])
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())
    assert answers.target_or(LABELS).equal(LABELS)
    assert Answers(model, images, target=TOP2[:, 1]).target_or(LABELS).equal(TOP2[:, 1])
    with pytest.raises(UnknownNameError, match="`output` must be one of logit, probability; got 'probs'"):
        answers.whole("probs")


@pytest.mark.parametrize("function", CALLS)
def test_an_option_without_use_is_refused(function, model, images):
    args, options = CALLS[function]
    if function in (gradient_sign_curves, *WITHOUT_TARGET):
        function(Answers(model, images, task="multiclass"), *args, **options)  # what they judge
        with pytest.raises(ArgumentError, match="`task` means nothing to this metric, got multilabel: leave it out"):
            function(Answers(model, images, task="multilabel"), *args, **options)
        with pytest.raises(TypeError, match="unexpected keyword argument 'task'"):
            function(model, images, *args, task="multilabel", **options)
    if function in WITHOUT_TARGET:
        with pytest.raises(ArgumentError, match="`target` means nothing to this metric"):
            function(Answers(model, images, target=LABELS), *args, **options)


def test_errors(model, images):
    with pytest.raises(ArgumentError, match=r"`images` must be \[N,C,H,W\] with N >= 1, got \[0, 2, 5, 6\]"):
        Answers(model, images[:0])
    with pytest.raises(ArgumentError, match=r"`batch_size` must be at least 1 image, got 0"):
        Answers(model, images, batch_size=0)
    with pytest.raises(ArgumentError, match=r"`logits` must be \[N,K\] with N = 4, got \[3, 3\]"):
        _ = Answers(model, images, logits=torch.zeros(3, 3)).target
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'images'"):
        insertion_curve(model, step=3)


def test_checks_name_the_first_place():
    values = torch.zeros(3, 2, 2)
    check_finite("maps", values)
    check_no_nan("maps", values / values.where(values > 0, 1))
    values[1, 0, 0], values[2, 0, 0] = torch.inf, torch.nan
    with pytest.raises(ArgumentError, match="`maps` must be finite, got NaN or infinity at index 1"):
        check_finite("maps", values)
    with pytest.raises(ArgumentError, match="`maps` must not be NaN, got NaN at index 2"):
        check_no_nan("maps", values)


def test_one_rule_for_images_at_once(model, images):
    assert Answers(model, images).batch_size == images_at_once(torch.device("cpu")) == 8
    assert images_at_once(torch.device("cuda")) == images_at_once(torch.device("meta")) == 64
    with pytest.raises(ArgumentError, match=r"`batch_size` must be at least 1 image, got -1"):
        images_at_once(torch.device("cpu"), -1)


def test_a_classifier_is_asked_as_its_network(model):
    images, classifier = torch.randn(4, 2, 5, 6), Classifier(model, (0.5,) * 3, (0.5,) * 3)
    for function in (insertion_curve, infidelity, masked_relative_probability, fgsm):
        args, options = CALLS[function]
        found, expected = (function(one, images, *args, **options) for one in (classifier, model))
        torch.testing.assert_close(found, expected, equal_nan=True)
    with pytest.raises(ArgumentError, match=r"`model` must be a torch.nn.Module or a Classifier, got function"):
        insertion_curve(lambda images: images, images, SALIENCY, step=7)


@pytest.mark.parametrize("target", [torch.tensor([True, False, True, False]), [0, 1, 2, 0]])
def test_targets_that_are_no_classes_are_refused(model, target):
    images = torch.randn(4, 2, 5, 6)
    with pytest.raises(ArgumentError, match=r"`target` must be (a tensor of )?integers \[4\]"):
        insertion_curve(model, images, SALIENCY, step=7, target=target)
