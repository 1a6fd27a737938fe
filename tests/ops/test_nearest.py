"""The contrast with the nearest classes, the strength of contrasts, and how both are written."""

from __future__ import annotations

import pytest
import torch

import contrex
from contrex.errors import ArgumentError, UnknownNameError
from contrex.evaluation import check_names
from contrex.ops import scores
from contrex.settings import CGC, Evaluation
from contrex.settings.contrast import is_contrast, read_contrast
from oracles import scores as oracle
from sampling import crossed

ROWS = [[2.0, 1.7, -1.0, 2.6, 0.3], [0.0, 5.0, 4.0, -3.0, 4.9]]
NAMED = ("mean", "max", "weighted", "nearest")


@pytest.mark.parametrize(("k", "alpha", "target"), crossed([1, 2, 3, 9], [0.0, 0.6, 1.0, 2.0], [0, 1, 3], one_in=3))
def test_nearest_is_the_score_of_finer_cam_with_its_gradient(k, alpha, target):
    text, targets = f"nearest(k={k}, alpha={alpha})", torch.full((2,), target)
    logits = torch.tensor(ROWS, dtype=torch.float64, requires_grad=True)
    found = scores.score(logits, targets, text)
    torch.testing.assert_close(found.tolist(), [oracle.nearest_score(row, target, k, alpha) for row in ROWS])
    (by_autograd,) = torch.autograd.grad(found.sum(), logits)
    written = scores.cotangent(logits.detach(), targets, text)
    torch.testing.assert_close(by_autograd, written)
    expected = [oracle.nearest_gradient(row, target, k, alpha) for row in ROWS]
    torch.testing.assert_close(written.tolist(), expected, rtol=1e-6, atol=1e-8)


def test_the_nearest_are_nearest_by_logit_on_both_sides_and_first_of_equals():
    logits = torch.tensor([[2.0, 1.0, 3.0, 2.5, -torch.inf], [1.0, 1.0, 1.0, 1.0, 0.0]])
    assert scores.nearest_classes(logits, torch.tensor([0, 2]), 3).tolist() == [[3, 1, 2], [0, 1, 3]]
    assert scores.nearest_classes(logits, torch.tensor([0, 2]), 99).tolist() == [[3, 1, 2, 4], [0, 1, 3, 4]]
    assert scores.foil_classes(logits, torch.tensor([0, 2]), "nearest(k=1)").tolist() == [[3], [0]]
    assert scores.foil_classes(logits, torch.tensor([0, 2]), "max(strength=0.5)").tolist() == [[2], [0]]
    assert scores.foil_classes(logits, torch.tensor([0, 2]), "mean(strength=0.5)") is None


def test_classes_that_are_masked_by_minus_infinity_count_nothing_among_the_nearest():
    logits = torch.tensor([[2.0, 1.0, -torch.inf]])
    masked, plain = (
        (scores.score(y, torch.tensor([0]), "nearest"), scores.cotangent(y, torch.tensor([0]), "nearest"))
        for y in (logits, logits[:, :2])
    )
    assert masked[0].tolist() == plain[0].tolist() == [1.0]
    assert masked[1].tolist() == [[*plain[1][0].tolist(), 0.0]]


@pytest.mark.parametrize("name", NAMED)
def test_a_strength_multiplies_what_is_set_against_the_target(name):
    logits = torch.tensor(ROWS, dtype=torch.float64, requires_grad=True)
    target, option = torch.tensor([0, 4]), "alpha" if name == "nearest" else "strength"
    own, whole = scores.logit(logits, target), scores.score(logits, target, name)
    for strength in (0.0, 0.3, 1.0, 2.5):
        text = f"{name}({option}={strength})"
        found = scores.score(logits, target, text)
        torch.testing.assert_close(found, own - strength * (own - whole))
        (row,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
        torch.testing.assert_close(scores.cotangent(logits.detach(), target, text), row)
    assert torch.equal(scores.score(logits, target, f"{name}({option}=1)"), whole)  # to the last bit


@pytest.mark.parametrize("text", ["nearest", "nearest(k=1, alpha=0.6)", "weighted(strength=0.5)", "mean(strength=2)"])
def test_a_strength_changes_nothing_of_one_logit(text):
    """Of one logit a contrast is with its other side: the score is z_t, as without a contrast."""
    y = torch.tensor([[0.7], [-3.0]], dtype=torch.float64)
    for target in (0, 1):
        classes = torch.full((2,), target)
        assert torch.equal(scores.score(y, classes, text), scores.score(y, classes))
        torch.testing.assert_close(scores.cotangent(y, classes, text), scores.cotangent(y, classes))
    twin = torch.cat([torch.zeros_like(y), y], 1)
    ours, theirs = (scores.class_weights(z, torch.tensor([1, 0]), text, score="probability") for z in (y, twin))
    torch.testing.assert_close(ours, theirs)


def test_of_labels_the_nearest_are_as_of_classes_and_the_weighted_contrast_is_the_logit():
    y, target = torch.tensor(ROWS), torch.tensor([0, 1])
    for text in ("nearest(alpha=0.6)", "mean(strength=0.5)"):
        torch.testing.assert_close(scores.score(y, target, text, "multilabel"), scores.score(y, target, text))
        torch.testing.assert_close(scores.cotangent(y, target, text, "multilabel"), scores.cotangent(y, target, text))
    found = scores.score(y, target, "weighted(strength=0.5)", "multilabel")
    assert torch.equal(found, scores.logit(y, target, "multilabel"))
    with pytest.raises(ArgumentError, match="`contrast` needs at least two classes, the model has 1"):
        scores.score(torch.zeros(1, 1), torch.tensor([0]), "nearest", "multilabel")


def test_a_loss_sees_through_the_weights_of_the_nearest():
    logits = torch.tensor(ROWS, dtype=torch.float64, requires_grad=True)

    def squared(y):
        return (scores.cotangent(y, torch.tensor([0, 1]), "nearest(k=2, alpha=0.6)") ** 2).sum()

    assert torch.autograd.gradcheck(squared, (logits,))


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("nearest", "nearest"),
        ("nearest(k=3, alpha=1.0)", "nearest"),
        (" nearest( alpha=0.6,k=5 ) ", "nearest(k=5, alpha=0.6)"),
        ("weighted(strength=1)", "weighted"),
        ("mean(strength=2)", "mean(strength=2.0)"),
        ("max()", "max"),
    ],
)
def test_a_contrast_has_one_spelling(text, spelling):
    assert is_contrast(text)
    assert str(read_contrast(text)) == spelling
    assert read_contrast(spelling) == read_contrast(text)


def test_what_is_no_contrast_may_be_a_class():
    for text in ("tabby", "mean fox", "crane (bird)", "weighted scale", 3, None, [1]):
        assert not is_contrast(text)


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nearst(k=3)", "`contrast` must be one of mean, max, weighted, nearest; got 'nearst'. Did you mean"),
        ("nearest(3)", r'name with options as in "nearest\(k=3, .*got .nearest\(3\).: each option needs its name'),
        (
            "nearest(strength=1)",
            r"`contrast` 'nearest\(strength=1\)': nearest has no option 'strength', only k and alpha",
        ),
        ("mean(k=3)", "mean has no option 'k', only strength"),
        ("nearest(k=0)", "k must be a whole number of classes, at least 1, got 0"),
        ("nearest(k=True)", "k must be a whole number of classes, at least 1, got True"),
        ("max(strength=-0.5)", "strength must be a number from 0 on, got -0.5; 1 is the whole contrast, 0 none"),
        ("nearest(alpha=1e999)", "alpha must be a number from 0 on, got inf"),
        ("mean(strength='a lot')", "strength must be a number from 0 on, got 'a lot'"),
        ("mean(strength=", "got 'mean\\(strength='"),
    ],
)
def test_contrasts_that_cannot_be_read_are_refused(text, message):
    calls = [
        lambda: scores.score(torch.zeros(1, 4), torch.tensor([0]), text),
        lambda: contrex.Gradient(network(), names=list("abcd"))(torch.rand(1, 3, 4, 4), contrast=text),
        lambda: CGC(contrast=text),
        lambda: check_names(Evaluation(contrast=text)),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=message.replace("`contrast`", "`(method.)?contrast`")):
            call()
    assert issubclass(UnknownNameError, ArgumentError)


def test_an_explanation_keeps_the_one_spelling_and_names_the_nearest():
    torch.manual_seed(0)
    explainer, x = contrex.Gradient(network(), names=list("abcd")), torch.rand(2, 3, 4, 4)
    why = explainer(x, target=1, contrast="nearest( alpha=0.6, k=2 )")
    assert why.contrast == "nearest(k=2, alpha=0.6)"
    assert "why b and not the nearest classes (nearest(k=2, alpha=0.6))?" in repr(why[0])
    assert torch.equal(why.foils, scores.nearest_classes(why.logits, why.target, 2))
    shares = why.logits[0].softmax(0)[why.foils[0]].tolist()
    for index, share in zip(why.foils[0].tolist(), shares, strict=True):
        assert f"{'abcd'[index]} {share:.0%}" in repr(why[0])
    assert " and not the nearest classes" in repr(explainer(x, contrast="nearest"))
