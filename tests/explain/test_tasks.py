"""Networks of one logit and of several labels: every explainer against the softmax twin, and labels against each."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError
from contrex.explain import EXPLAINERS, ClassExplanations, Explanation
from contrex.explain.contract import CHECKS
from explain.networks import images, network
from explain.test_contract import CHEAPER, small_network
from sampling import crossed

OF_A_CLASS = [name for name, kind in EXPLAINERS.items() if kind.is_class_specific]
LABELS = (3, 0)


def explainer(method, net):
    return CHEAPER.get(method, EXPLAINERS[method])(net)


def with_rows(net, change):
    """A copy of `net` whose last linear layer has `change` of its rows: weights [K,D] and biases [K] to as many."""
    net = deepcopy(net)
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
    last.weight, last.bias = (nn.Parameter(change(p.detach())) for p in (last.weight, last.bias))
    last.out_features = len(last.weight)
    return net


def one_logit(net, row=1):
    return with_rows(net, lambda rows: rows[row : row + 1])


def twin(net, row=1):
    """Its softmax twin, with the logits (0, y)."""
    return with_rows(net, lambda rows: torch.stack([torch.zeros_like(rows[row]), rows[row]]))


@pytest.mark.parametrize(("method", "score"), crossed(OF_A_CLASS, ["probability", "log_probability"], one_in=4))
def test_maps_of_probabilities_are_those_of_the_softmax_twin(method, score):
    net, x = small_network(method)
    pairs = [
        explainer(method, kind(net)).contrasts(x, [None, "weighted"], classes=[0, 1], score=score)
        for kind in (one_logit, twin)
    ]
    for one, two in zip(*pairs, strict=True):
        torch.testing.assert_close(one.heatmap, two.heatmap, atol=1e-12, rtol=1e-7)
        torch.testing.assert_close(one.probability, two.probability)
        assert (one.heatmap != 0).flatten(2).any(2).all()


@pytest.mark.parametrize("method", crossed(OF_A_CLASS, one_in=2))
def test_maps_of_the_logit(method):
    """Class 1 is the twin's; class 0 is that of the network that says -y, and in linear methods the negative."""
    net, x = small_network(method)
    sides = explainer(method, one_logit(net)).classes(x, classes=[1, 0])
    torch.testing.assert_close(sides.heatmap[:, 0], explainer(method, twin(net))(x, target=1).heatmap)
    assert (sides.heatmap[:, 0] != 0).flatten(1).any(1).all()
    if EXPLAINERS[method].is_linear:
        torch.testing.assert_close(sides.heatmap[:, 1], -sides.heatmap[:, 0], atol=1e-12, rtol=1e-7)
    if method != "excitation_backprop":  # its walks start at the logit only
        opposite = with_rows(one_logit(net), torch.neg)
        found = explainer(method, opposite)(x, target=1).heatmap
        torch.testing.assert_close(sides.heatmap[:, 1], found, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("method", crossed(OF_A_CLASS, one_in=2, start=1))
def test_a_contrast_of_one_logit_is_the_other_side(method):
    """Linear methods: the map itself; others: half the difference of the maps of y and -y, however it is asked."""
    net, x = small_network(method)
    explain = explainer(method, one_logit(net))
    sides = explain.classes(x, classes=[1, 0])
    expected = (sides.heatmap[:, 0] - sides.heatmap[:, 1]) / 2
    for contrast in ("mean", "max", "weighted", 0, [[0]]):
        found = explain(x, target=1, contrast=contrast).heatmap
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-7)
    if EXPLAINERS[method].is_linear:
        torch.testing.assert_close(expected, sides.heatmap[:, 0], atol=1e-12, rtol=1e-7)
    for found in (sides.pair(0, 1).heatmap, sides.pairs()[:, 0, 1], sides.weighted()[:, 0]):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", crossed(OF_A_CLASS, one_in=3, start=1))
def test_labels_are_explained_as_networks_of_one_logit(method):
    net, x = small_network(method)
    for score in ("probability", "log_probability"):
        together = explainer(method, net).classes(x, classes=LABELS, score=score, task="multilabel")
        for place, label in enumerate(LABELS):
            alone = explainer(method, one_logit(net, label))(x, target=1, score=score)
            torch.testing.assert_close(together.heatmap[:, place], alone.heatmap, atol=1e-12, rtol=1e-7)
            torch.testing.assert_close(together.probability[:, place], alone.probability)
    weighted = explainer(method, net)(x, target=2, contrast="weighted", task="multilabel")
    torch.testing.assert_close(weighted.heatmap, explainer(method, net)(x, target=2).heatmap)


@pytest.mark.parametrize("method", [name for name, kind in EXPLAINERS.items() if not kind.is_class_specific])
def test_maps_that_know_no_class_are_the_same_for_both_sides(method):
    net, x = small_network(method)
    sides = explainer(method, one_logit(net)).classes(x)
    torch.testing.assert_close(sides.heatmap[:, 0], sides.heatmap[:, 1])
    torch.testing.assert_close(sides.heatmap[:, 0], explainer(method, twin(net))(x).heatmap)


@pytest.mark.parametrize("head", ["pooled", "mlp", "scaled"])
def test_grad_cam_of_one_logit_by_hand(head):
    net, x = one_logit(network(head)), images()
    activation = net.act(net.features(x)).detach().requires_grad_()
    logit = net.head(activation)[:, 0]
    slopes = {
        "logit": torch.ones_like(logit),
        "probability": logit.sigmoid() * (1 - logit.sigmoid()),
        "log_probability": 1 - logit.sigmoid(),
    }
    (gradient,) = torch.autograd.grad(logit.sum(), activation)
    plain = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), activation)
    for score, slope in slopes.items():
        found = contrex.GradCAM(net)(x, target=1, score=score)
        torch.testing.assert_close(found.heatmap, (slope[:, None, None] * plain).detach())
        torch.testing.assert_close(found.probability, logit.sigmoid().detach())


def test_the_default_target_is_the_side_of_the_logit():
    net, x = one_logit(network("mlp")), images(8)
    y = net(x)[:, 0].detach()
    net.head[-1].bias.data -= y.median()
    why = contrex.GradCAM(net)(x)
    assert why.task == "binary"
    assert why.target.tolist() == (net(x)[:, 0] > 0).long().tolist()
    assert len(set(why.target.tolist())) == 2
    assert (why.probability >= 0.5).all()
    called = contrex.GradCAM(net)(x, target=lambda logits: (logits[:, 0] <= 0).long())
    assert called.target.tolist() == [1 - t for t in why.target.tolist()]
    layers = contrex.GradCAM(net).layers(x, ["act"], task="binary")
    torch.testing.assert_close(layers["act"].heatmap, why.heatmap)
    assert layers["act"].task == "binary"


def test_one_label_is_class_0():
    net, x = one_logit(network("pooled")), images()
    why = contrex.GradCAM(net)(x, task="multilabel", score="probability")
    assert why.target.tolist() == [0, 0, 0]
    expected = contrex.GradCAM(net)(x, target=1, score="probability")
    torch.testing.assert_close(why.heatmap, expected.heatmap)
    torch.testing.assert_close(why.probability, expected.probability)
    with pytest.raises(ArgumentError, match="`target` must be between 0 and 0"):
        contrex.GradCAM(net)(x, task="multilabel", target=1)


def test_classes_are_the_labels_above_the_threshold():
    net, x = network("mlp"), images(6)
    explain, p = contrex.GradCAM(net), net(x).detach().sigmoid()
    threshold = float(p.median())
    found = explain.classes(x, task="multilabel", threshold=threshold)
    num = int((p > threshold).sum(1).max())
    assert found.heatmap.shape[:2] == found.target.shape == (6, num)
    assert found.present.sum(1).tolist() == (p > threshold).sum(1).tolist()
    torch.testing.assert_close(found.probability, p.gather(1, found.target))
    assert (found.probability.diff(dim=1) <= 0).all()
    few = explain.classes(x, 2, task="multilabel", threshold=threshold)
    assert few.present.equal(few.probability > threshold)
    torch.testing.assert_close(few.heatmap, found.heatmap[:, :2])
    usual = explain.classes(x, task="multilabel")
    assert usual.present.equal(usual.probability > 0.5)
    assert explain.classes(x, task="multilabel", threshold=0.999).heatmap.shape[1] == 1
    torch.testing.assert_close(found.weighted(), found.heatmap)
    assert found.explanation(0).task == found.pair(0, 1).task == "multilabel"


def test_differentiable_maps_of_a_probability():
    """Double backward through a sigmoid, by finite differences in the last bias."""
    net, x = one_logit(network("mlp")), images()
    bias = net.head[-1].bias

    def loss(**options):
        return contrex.GradCAM(net)(x, target=0, score="probability", **options).heatmap.square().sum()

    (found,) = torch.autograd.grad(loss(differentiable=True), bias)
    sides = []
    for step in (1e-5, -2e-5):
        bias.data += step
        sides.append(loss())
    assert found.item() == pytest.approx(((sides[0] - sides[1]) / 2e-5).item(), rel=1e-5)


PROMISES = ("gives_what_it_promises", "explains_a_batch_as_single_images", "answers_classes_as_single_calls")


@pytest.mark.parametrize("method", crossed(EXPLAINERS, one_in=3))
def test_the_contract_holds_for_one_logit(method):
    net, x = small_network(method)
    for check in PROMISES if method not in CHEAPER else PROMISES[:1]:
        CHECKS[check](CHEAPER.get(method, EXPLAINERS[method]), one_logit(net), x)


@pytest.mark.slow
def test_captum_explains_one_logit():
    pytest.importorskip("captum")
    net, x = network("mlp"), images()
    for attribution in ("Saliency", "InputXGradient", "Occlusion"):
        options = {"sliding_window_shapes": (3, 4, 6), "strides": (3, 4, 6)} if attribution == "Occlusion" else {}
        for score in ("probability", "log_probability"):
            one, two = (
                contrex.Captum(kind(net), attribution, **options)(x, target=0, contrast="mean", score=score).heatmap
                for kind in (one_logit, twin)
            )
            torch.testing.assert_close(one, two)
    with pytest.raises(ArgumentError, match="no rule for a softmax or sigmoid"):
        contrex.Captum(one_logit(net), "DeepLift")(x, score="probability")


def test_explanations_are_made_and_joined_with_their_task():
    logits, heatmap = torch.tensor([[2.0], [-1.0]]), torch.ones(2, 3, 3)
    plain = Explanation(heatmap, logits, torch.tensor([1, 1]))  # as one did before there were tasks
    torch.testing.assert_close(plain.probability, logits[:, 0].sigmoid())
    joined = Explanation.cat([Explanation(heatmap, logits, torch.tensor([0, 1]), "binary")] * 2)
    assert (len(joined), joined.task, joined.target.tolist()) == (4, "binary", [0, 1, 0, 1])
    assert joined.positive().task == joined.resize(5).task == "binary"
    for parts in ([], [joined, Explanation(heatmap, logits, torch.tensor([0, 0]), "multilabel")]):
        with pytest.raises(ArgumentError, match="`parts` must be explanations of one task"):
            Explanation.cat(parts)
    several = ClassExplanations(torch.ones(1, 1, 2, 2), torch.randn(1, 3), torch.tensor([[2]]))
    with pytest.raises(ArgumentError, match="`weighted` needs the maps of at least two classes"):
        several.weighted()


@pytest.mark.parametrize("method", ["grad_cam", "gradient", "occlusion"])
def test_tasks_that_do_not_fit_are_refused_by_every_door(method):
    net, x = small_network(method)
    one, several = explainer(method, one_logit(net)), explainer(method, net)
    for call, message in (
        (lambda: several(x, task="binary"), "`task` 'binary' needs one logit, the model has 4"),
        (lambda: one.classes(x, task="multiclass"), "`task` 'multiclass' needs at least two logits"),
        (lambda: one.contrasts(x, [None], task="labels"), "`task` must be one of"),
        (lambda: one(x, target=2), "`target` must be between 0 and 1"),
        (lambda: one.classes(x, 3), "`k` must be between 1 and 2"),
        (lambda: one(x, target=1, contrast=1), "`contrast` must differ from `target`"),
        (lambda: several.classes(x, 2, threshold=0.3), "`threshold` says which labels are present"),
        (lambda: several.classes(x, task="multilabel", threshold=-0.1), "`threshold` must be a probability"),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


def test_relevance_that_cannot_tell_two_sides_is_refused():
    net, x = network("mlp"), images()
    relevance = contrex.LRP(one_logit(net), start="one")
    with pytest.raises(ArgumentError, match="`start` 'one' gives both sides of one logit the same relevance"):
        relevance(x)
    found = relevance(x, task="multilabel").heatmap  # one label has one side
    torch.testing.assert_close(found, contrex.LRP(net, start="one")(x, target=1).heatmap)
