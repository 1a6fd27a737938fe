"""A head of sigmoids on frozen features, against its equation; what it is trained on, and what stays."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from contrex.errors import ArgumentError, LayerError
from contrex.losses import binary_cross_entropy
from contrex.methods import training_plan, training_step
from contrex.models import build_network
from contrex.settings import BCEHead, Digits, Model, Recipe, Training
from methods.test_steps import make_batch, make_classifier
from oracles import binary as oracle
from sampling import sampled


def phase_of(settings, classifier):
    recipe = Recipe("bce", Digits(), Model("contrex:convnet"), settings, training=Training(epochs=2))
    plan = training_plan(classifier, recipe)
    plan.phases[0].begin(0)
    return plan, plan.phases[0]


@sampled(one_in=3)
@pytest.mark.parametrize("targets", ["labels", "teacher", "teacher-top1"])
@pytest.mark.parametrize("views", ["both", "plain", "transformed"])
def test_the_step_is_its_equation(targets, views):
    classifier, batch = make_classifier(), make_batch()
    before = copy.deepcopy(classifier.network).eval()
    _, phase = phase_of(BCEHead(targets=targets, start="kept", views=views), classifier)
    network = classifier.network
    with torch.no_grad():
        network.fc.weight.mul_(-1.5)
    seen = {"plain": [batch.images], "transformed": [batch.views[0].pixels]}
    images = torch.cat(seen.get(views) or seen["plain"] + seen["transformed"]) * 4 - 2
    theirs = before(images)
    labels = batch.labels.repeat(len(images) // 4) if targets == "labels" else theirs.argmax(1)
    wanted = [[float(k == label) for k in range(3)] for label in labels.tolist()]
    wanted = theirs.softmax(1).tolist() if targets == "teacher" else wanted
    weight = network.fc.weight.detach().clone().requires_grad_()
    logits = before.features(images).mean((2, 3)).detach() @ weight.T + network.fc.bias.detach()
    expected = oracle.binary_cross_entropy(logits, wanted)
    output = phase.step(batch)
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    torch.testing.assert_close(network.fc.weight.grad, torch.autograd.grad(expected, weight)[0])
    right = batch.labels if targets == "labels" else theirs.argmax(1)[:4]
    name = "accuracy" if targets == "labels" else "agreement"
    assert output.logs[name] == (logits.argmax(1)[:4] == right).double().mean()
    if targets != "labels":
        assert phase.step(replace(batch, labels=batch.labels - 9)).loss == output.loss


def test_the_head_alone_is_trained_and_begins_with_classes_as_probable():
    classifier, batch = make_classifier(), make_batch()
    before = copy.deepcopy(classifier.network.state_dict())
    plan, phase = phase_of(BCEHead(targets="teacher-top1"), classifier)
    network = classifier.network
    assert list(phase.parameters) == list(network.fc.parameters())
    assert not network.training
    torch.testing.assert_close(network(batch.images).sigmoid(), torch.full((4, 3), 1 / 3, dtype=torch.float64))
    optimizer = torch.optim.SGD(phase.parameters, lr=0.5)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        output = phase.step(batch)
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[0] == pytest.approx(-math.log(1 / 3) - 2 * math.log(2 / 3))
    assert losses[-1] < 0.3 * losses[0]
    after = network.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == ["fc.weight", "fc.bias"]
    torch.testing.assert_close(phase.step.reference.network.state_dict(), before)
    plan.finish()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_where_it_begins_does_not_decide_where_it_ends():
    """From zeros and from the layer as it was, to the same probabilities."""
    ends = []
    for start in ("uniform", "kept"):
        classifier, batch = make_classifier(), make_batch()
        _, phase = phase_of(BCEHead(targets="teacher", start=start, views="plain"), classifier)
        optimizer = torch.optim.LBFGS(
            phase.parameters, max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
        )

        def closure(step=phase.step, own=optimizer, batch=batch):
            own.zero_grad()
            loss = step(batch).loss
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append(classifier.network(classifier.normalise(batch.images)).sigmoid())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_what_is_refused():
    squeezenet = replace(make_classifier(), network=build_network("torchvision:squeezenet1_1", {"num_classes": "3"}))
    with pytest.raises(LayerError, match="must end in one linear classifier"):
        training_step(squeezenet, BCEHead())
    with pytest.raises(ArgumentError, match=r"`logits` must be \[N,K\] with N >= 1 and K >= 2, got \[4, 1\]"):
        binary_cross_entropy(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ArgumentError, match=r"`targets` must be \[4\] integers or \[4, 3\] like `logits`, got \[4\]"):
        binary_cross_entropy(torch.zeros(4, 3), torch.zeros(4))
