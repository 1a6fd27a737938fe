import math

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import FeatureSimilarity, feature_similarity


def test_the_cosine_of_each_pair():
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 4, generator=rng) for _ in range(2))
    for value, one, other in zip(feature_similarity(first, second).tolist(), first, second, strict=True):
        product = sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))
        lengths = math.hypot(*one.tolist()) * math.hypot(*other.tolist())
        assert value == pytest.approx(product / lengths, rel=1e-6)
    assert feature_similarity(first, -first).tolist() == pytest.approx([-1.0] * 5)
    torch.testing.assert_close(feature_similarity(1e-30 * first, second), feature_similarity(first, second))


def test_zero_features_are_skipped():
    metric = FeatureSimilarity("masked")
    metric.update(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.ones(2, 2))
    record = metric.record(num_bootstrap=5, seed=0)
    assert (record.name, record.num_counted, record.num_skipped) == ("feature_similarity_masked", 1, 1)
    assert record.value == pytest.approx(1.0)


def test_refuses():
    with pytest.raises(ArgumentError, match=r"must be \[N,D\] alike, got \[2, 3\] and \[2, 2\]"):
        feature_similarity(torch.zeros(2, 3), torch.zeros(2, 2))
    broken = torch.tensor([[1.0], [torch.inf]])
    with pytest.raises(ArgumentError, match="`features` must be finite, they are not at index 1"):
        feature_similarity(torch.ones(2, 1), broken)
