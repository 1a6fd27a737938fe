from __future__ import annotations

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import CGCLossMetric


def test_mean_over_anchors_not_over_batches():
    metric = CGCLossMetric()
    metric.update(torch.tensor([1.0, 2.0, 3.0]))
    metric.update(torch.tensor([6.0]))
    assert metric.compute() == 3.0
    assert not metric.higher_is_better


def test_keeps_no_graph():
    metric = CGCLossMetric()
    metric.update(torch.ones(2, requires_grad=True))
    assert not metric.values().requires_grad


def test_errors():
    with pytest.raises(ArgumentError, match=r"`losses` must be \[N\], one per anchor, got \[\]: do not average them"):
        CGCLossMetric().update(torch.tensor(1.0))
    with pytest.raises(ArgumentError, match=r"`losses` must be finite, got NaN or infinity at index 2"):
        CGCLossMetric().update(torch.tensor([1.0, 2.0, torch.nan]))
