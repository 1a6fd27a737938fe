from __future__ import annotations

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import TopKAccuracy, top_k_correct


def slow_top_k(logits, label, k):
    """Sort the classes by falling logit, equal ones by index, and look among the first k."""
    order = sorted(range(len(logits)), key=lambda s: (-logits[s], s))
    return label in order[:k]


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_oracle_with_many_ties(k):
    logits = torch.randint(0, 4, (200, 6)).float()
    labels = torch.randint(0, 6, (200,))
    expected = [slow_top_k(row.tolist(), int(label), k) for row, label in zip(logits, labels, strict=True)]
    assert top_k_correct(logits, labels, k).tolist() == expected


def test_top1_is_argmax():
    logits, labels = torch.randint(0, 3, (100, 5)).float(), torch.randint(0, 5, (100,))
    assert top_k_correct(logits, labels, 1).equal(logits.argmax(dim=1) == labels)


def test_a_network_without_an_opinion_scores_chance():
    assert top_k_correct(torch.zeros(10, 10), torch.arange(10), 1).sum() == 1


def test_all_classes_are_always_right():
    assert top_k_correct(torch.randn(7, 3), torch.randint(0, 3, (7,)), 3).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    assert top_k_correct(torch.eye(3, dtype=dtype), torch.arange(3), 1).all()


def test_metric_is_the_mean_in_percent_over_batches():
    logits, labels = torch.randn(30, 8), torch.randint(0, 8, (30,))
    metric = TopKAccuracy(k=5)
    metric.update(logits[:11], labels[:11])
    metric.update(logits[11:], labels[11:])
    assert metric.name == "top5"
    assert metric.compute().item() == pytest.approx(100 * top_k_correct(logits, labels, 5).double().mean().item())


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 1]), 4, r"`k` must lie in 1..3, the number of classes, got 4"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), 0, r"`k` must lie in 1..3"),
        (torch.zeros(2, 3), torch.tensor([0]), 1, r"`labels` \[N\], got \[2, 3\] and \[1\]"),
        (torch.zeros(3), torch.tensor([0]), 1, r"`logits` must be \[N,K\]"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), 1, r"`labels` must be integers, got torch.float32"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), 1, r"`labels` must lie in 0..2, got -1 at index 1"),
        (torch.zeros(2, 3), torch.tensor([3, 0]), 1, r"got 3 at index 0"),
        (torch.tensor([[0.0, 1.0], [0.0, torch.nan]]), torch.tensor([0, 1]), 1, r"NaN at index 1"),
    ],
)
def test_errors(logits, labels, k, message):
    with pytest.raises(ArgumentError, match=message):
        top_k_correct(logits, labels, k)


def test_k_of_the_metric():
    with pytest.raises(ArgumentError, match=r"`k` must be at least 1, got 0"):
        TopKAccuracy(k=0)
