"""Metrics of networks of one logit are those of the softmax over (0, y); those of labels, of each label's network."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError
from contrex.metrics import (
    RobustAccuracy,
    TopKAccuracy,
    confidence_and_correct,
    deletion_curve,
    expected_calibration_error,
    fgsm_direction,
    gradient_sign_curves,
    infidelity,
    insertion_curve,
    kept_probabilities,
    masked_relative_probability,
    relative_probability,
    score_gradient,
    score_gradients,
    top_k_correct,
    two_most_probable,
)
from sampling import sampled

NUM = 6


def network(rows):
    """A small network in float64 whose last layer has the rows `rows` of one with 3 logits; -1 is a row of zeros."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    last = deepcopy(net[-1])
    last.weight.data, last.bias.data = (torch.cat([p, torch.zeros_like(p[:1])])[rows] for p in (last.weight, last.bias))
    last.out_features = len(rows)
    return nn.Sequential(*net[:-1], last)


@pytest.fixture(scope="module")
def shown():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(NUM, 2, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.randn(NUM, 6, 6, generator=generator, dtype=torch.float64)


ASKING = {
    "insertion": lambda *args, **options: insertion_curve(*args, step=7, **options),
    "insertion from imputed pixels": lambda *args, **options: insertion_curve(
        *args, step=18, baseline="road", **options
    ),
    "deletion": lambda *args, **options: deletion_curve(*args, step=7, **options),
    "kept": lambda *args, **options: torch.cat([p.view(NUM, -1) for p in kept_probabilities(*args, **options)], 1),
    "infidelity": lambda *args, **options: infidelity(
        *args, num_samples=3, noise_std=0.3, seeds=range(NUM), output="probability", normalise=False, **options
    ),
}


@sampled(one_in=2)
@pytest.mark.parametrize("name", ASKING)
def test_probabilities_of_one_logit_are_those_of_its_twin(name, shown):
    for target in (None, torch.tensor([0, 1] * 3)):
        one, two = (ASKING[name](network(rows), *shown, target=target) for rows in ([1], [-1, 1]))
        torch.testing.assert_close(one, two)
        named = ASKING[name](network([1]), *shown, target=target, task="binary")
        torch.testing.assert_close(named, one)
    assert one.std() > 0


@sampled(one_in=2)
@pytest.mark.parametrize("name", ASKING)
def test_probabilities_of_labels_are_those_of_networks_of_one(name, shown):
    for label in range(3):
        target = torch.full((NUM,), label)
        found = ASKING[name](network([0, 1, 2]), *shown, target=target, task="multilabel")
        expected = ASKING[name](network([label]), *shown, target=torch.ones_like(target))
        torch.testing.assert_close(found, expected)
    most = ASKING[name](network([0, 1, 2]), *shown, task="multilabel")
    target = network([0, 1, 2])(shown[0]).argmax(1)
    torch.testing.assert_close(most, ASKING[name](network([0, 1, 2]), *shown, target=target, task="multilabel"))


def test_infidelity_to_the_logit_of_either_side(shown):
    options = {"num_samples": 3, "noise_std": 0.3, "seeds": range(NUM), "output": "logit", "normalise": True}
    images, saliency = shown
    sides = [
        infidelity(network([1]), images, sign * saliency, target=torch.full((NUM,), side), **options)
        for side, sign in ((1, 1), (0, -1))
    ]
    torch.testing.assert_close(*sides)


def test_accuracy_and_calibration_of_one_logit(shown):
    logits = network([1])(shown[0]).detach()
    logits = logits - logits.median()
    logits[0] = 0.0  # neither side: the class 0, as of equal logits
    twin, labels = torch.cat([torch.zeros_like(logits), logits], 1), torch.tensor([0, 1, 1, 0, 1, 0])
    assert top_k_correct(logits, labels, 1).equal((logits[:, 0] > 0) == labels)
    for k in (1, 2):
        assert top_k_correct(logits, labels, k).equal(top_k_correct(twin, labels, k))
    (confidence, correct), (expected, right) = (confidence_and_correct(y, labels) for y in (logits, twin))
    torch.testing.assert_close(confidence, expected)
    assert correct.equal(right)
    assert expected_calibration_error(confidence, correct) > 0
    for metric in (TopKAccuracy(k=1), RobustAccuracy(epsilon=0.1)):
        metric.update(logits, labels)
        assert metric.compute() == 100 * right.double().mean()


def test_the_attack_of_one_logit_is_its_twins(shown):
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    one, two = (fgsm_direction(network(rows), shown[0], labels) for rows in ([1], [-1, 1]))
    assert one.equal(two)
    assert one.abs().sum() > 0


def test_gradients_of_one_logits_scores(shown):
    net, images, target = network([1]), shown[0], torch.tensor([0, 1, 1, 0, 1, 0])
    leaf = images.clone().requires_grad_()
    ((2 * target - 1) * net(leaf)[:, 0]).sum().backward()
    for contrast in (None, "weighted", "mean"):
        torch.testing.assert_close(score_gradient(net, contrast)(images, target), leaf.grad)
    torch.testing.assert_close(score_gradients(net, images, target, {"max": "max"})["max"], leaf.grad)


def test_what_means_nothing_to_one_logit_is_refused(shown):
    net, (images, saliency) = network([1]), shown
    logits, pair, labels = net(images).detach(), torch.tensor([[0, 1]] * NUM), torch.zeros(NUM, dtype=torch.long)
    maps = saliency[:, None].expand(-1, 2, -1, -1)
    for call, message in (
        (lambda: two_most_probable(logits), r"at least 2 classes, got \[6, 1\]; of one logit \(a sigmoid\)"),
        (lambda: relative_probability(logits, labels, pair), "`logits` must have at least 2 classes, got one logit"),
        (lambda: masked_relative_probability(net, images, maps, maps, top2=pair), "got one logit"),
        (
            lambda: gradient_sign_curves(net, images, labels, {"a": score_gradient(net)}, [0.1], clamp=False),
            "`model` must give at least 2 logits, it gives one .* all four scores are the same",
        ),
        (lambda: top_k_correct(logits, labels + 2, 1), r"`labels` must lie in 0..1, got 2 at index 0"),
        (lambda: top_k_correct(logits, labels, 3), "`k` must lie in 1..2"),
        (lambda: fgsm_direction(net, images, labels + 2), r"at least 2 classes, got \[6, 1\] and the label 2"),
        (lambda: insertion_curve(net, images, saliency, step=7, target=labels + 2), "`target` must lie in 0..1"),
        (lambda: insertion_curve(net, images, saliency, step=7, task="multiclass"), "`task` 'multiclass' needs at lea"),
        (lambda: kept_probabilities(network([0, 1]), images, saliency, task="binary"), "`task` 'binary' needs one log"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()
