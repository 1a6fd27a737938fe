import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrex.errors import ArgumentError, UnknownNameError
from contrex.ops import scores
from oracles import scores as oracle

PLAIN = {
    "logit": scores.logit,
    "probability": scores.probability,
    "log_probability": scores.log_probability,
    "mean": scores.mean_contrast,
    "max": scores.max_contrast,
    "weighted": scores.weighted_contrast,
}
logit_rows = st.lists(st.floats(-8, 8), min_size=2, max_size=6, unique=True)


@pytest.mark.parametrize("name", PLAIN)
@given(row=logit_rows, data=st.data())
@settings(max_examples=40, deadline=None)
def test_gradient_is_the_papers(name, row, data):
    target = data.draw(st.integers(0, len(row) - 1))
    logits = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    PLAIN[name](logits, torch.tensor([target])).sum().backward()
    expected = torch.tensor(oracle.gradient(name, row, target), dtype=torch.float64)
    torch.testing.assert_close(logits.grad[0], expected, rtol=1e-6, atol=1e-9)


def test_gradient_of_pair_contrast_is_the_papers():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target, foil = torch.tensor([0, 1, 2]), torch.tensor([4, 0, 3])
    scores.pair_contrast(logits, target, foil).sum().backward()
    for row, t, s, got in zip(logits.tolist(), target.tolist(), foil.tolist(), logits.grad, strict=True):
        torch.testing.assert_close(got.tolist(), oracle.gradient("pair", row, t, s))


@pytest.mark.parametrize("name", ["mean", "max", "weighted"])
def test_contrasts_ignore_a_constant_added_to_all_logits(name):
    logits, target = torch.randn(16, 7, dtype=torch.float64), torch.randint(7, (16,))
    shifted = scores.score(logits + 123.0, target, name)
    torch.testing.assert_close(shifted, scores.score(logits, target, name), rtol=0, atol=1e-12)
    assert not torch.allclose(scores.logit(logits + 123.0, target), scores.logit(logits, target))


def test_two_classes_make_all_contrasts_equal():
    logits, target = torch.randn(16, 2, dtype=torch.float64), torch.randint(2, (16,))
    expected = scores.pair_contrast(logits, target, 1 - target)
    for name in scores.CONTRASTS:
        torch.testing.assert_close(scores.score(logits, target, name), expected)


def test_weighted_contrast_keeps_its_gradient_where_probability_underflows():
    logits = torch.tensor([[60.0, 0.0, -1.0]], requires_grad=True)
    target = torch.tensor([0])
    (from_probability,) = torch.autograd.grad(scores.probability(logits, target).sum(), logits)
    (from_contrast,) = torch.autograd.grad(scores.weighted_contrast(logits, target).sum(), logits)
    assert from_probability.abs().max() < 1e-20
    others = torch.tensor([0.0, -1.0]).softmax(0)
    torch.testing.assert_close(from_contrast, torch.tensor([[1.0, -others[0], -others[1]]]))


def test_weighted_contrast_is_the_log_odds():
    logits, target = torch.randn(8, 5, dtype=torch.float64), torch.randint(5, (8,))
    p = scores.probability(logits, target)
    torch.testing.assert_close(scores.weighted_contrast(logits, target), (p / (1 - p)).log())


@pytest.mark.parametrize("contrast", [None, "mean", "max", "weighted", 3])
def test_cotangent_is_the_gradient_and_stays_differentiable(contrast):
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 4])

    def squared_cotangent(y):
        return (scores.cotangent(y, target, contrast) ** 2).sum()

    (row,) = torch.autograd.grad(scores.score(logits, target, contrast).sum(), logits)
    torch.testing.assert_close(scores.cotangent(logits, target, contrast).detach(), row)
    torch.testing.assert_close(scores.cotangent(logits.detach(), target, contrast), row)
    if contrast == "weighted":
        assert torch.autograd.gradcheck(squared_cotangent, (logits,))


def test_class_indices_of_every_convenient_form():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    for value, expected in [(None, [1, 0]), (2, [2, 2]), ([2, 0], [2, 0]), (torch.tensor([0, 1]), [0, 1])]:
        found = scores.class_indices(value, logits)
        assert found.tolist() == expected
        assert found.dtype == torch.int64


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"`target` must be one class or one per image, \[2\]; got shape \[1\]"),
        ([0, 1, 2], r"got shape \[3\] for 2 image"),
        (3, "between 0 and 2, the model's classes; got 3"),
        (-1, "got -1"),
        (torch.tensor([0.5, 1.0]), "integers"),
        (torch.tensor([True, False]), "integers"),
        (torch.zeros(2, 2, dtype=torch.long), "one class or one per image"),
    ],
)
def test_class_indices_refuses(value, message):
    with pytest.raises(ArgumentError, match=message):
        scores.class_indices(value, torch.zeros(2, 3))


def test_score_refuses():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(UnknownNameError, match=r"mean, max, weighted; got 'wieghted'. Did you mean 'weighted'"):
        scores.score(logits, target, "wieghted")
    with pytest.raises(ArgumentError, match="both are class 1 for image 1"):
        scores.score(logits, target, 1)
    with pytest.raises(ArgumentError, match="needs at least two classes, the model has 1"):
        scores.score(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), "mean", "multilabel")
    with pytest.raises(ArgumentError, match="`contrast` must be between 0 and 2"):
        scores.score(logits, target, 5)


def test_several_foils_are_a_weighted_contrast_among_them():
    logits, target = torch.randn(3, 6, dtype=torch.float64), torch.tensor([0, 1, 2])
    foils = torch.tensor([[3, 5], [4, 0], [5, 1]])
    found = scores.score(logits, target, foils)
    row = scores.cotangent(logits, target, foils)
    for n in range(3):
        rivals = logits[n, foils[n]]
        assert found[n] == pytest.approx(float(logits[n, target[n]] - rivals.logsumexp(0)))
        torch.testing.assert_close(row[n, foils[n]], -rivals.softmax(0))
        assert row[n, target[n]] == 1
        assert (row[n] != 0).sum() == 3
    everything = [[s for s in range(6) if s != t] for t in target.tolist()]
    torch.testing.assert_close(
        scores.cotangent(logits, target, everything), scores.cotangent(logits, target, "weighted")
    )
    torch.testing.assert_close(
        scores.score(logits, target, [[3, 4]]), scores.score(logits, target, torch.tensor([[3, 4]] * 3))
    )
    with pytest.raises(ArgumentError, match="both are class 2 for image 2"):
        scores.score(logits, target, [[5, 2]])
    with pytest.raises(ArgumentError, match=r"one class or one per image, \[3\]; got shape \[2, 2\]"):
        scores.score(logits, target, [[3, 4], [3, 4]])


@pytest.mark.parametrize("value", ["tabby", [[0], [1, 2]], [None]])
def test_class_indices_refuses_what_is_no_number(value):
    with pytest.raises(ArgumentError, match="`target` must hold class indices"):
        scores.class_indices(value, torch.zeros(2, 3))
