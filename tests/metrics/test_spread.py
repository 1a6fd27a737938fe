"""The spread of a heatmap against its formula, and maps whose spread is known."""

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import Spread, spread
from oracles import spread as oracle


def test_it_is_its_formula():
    maps = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = [oracle.spread(one.tolist()) for one in maps]
    torch.testing.assert_close(spread(maps), torch.tensor(expected, dtype=torch.float64))


def test_known_maps():
    maps = torch.zeros(4, 4, 4)
    maps[0] = 0.3
    maps[1, 2, 1] = 5
    maps[2, :2] = 1e-30
    maps[2, 2:] = -4
    found = spread(maps)
    torch.testing.assert_close(found[:3], torch.tensor([1, 1 / 16, 0.5], dtype=torch.float64))
    assert found[3].isnan()
    torch.testing.assert_close(spread(7 * maps[:3].flip(2)), found[:3])
    metric = Spread()
    metric.update(maps)
    record = metric.record(10, 0)
    assert (record.num_counted, record.num_skipped) == (3, 1)
    assert record.value == pytest.approx(100 * (1 + 1 / 16 + 0.5) / 3)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be \[N,h,w\] with N >= 1, got \[4, 4\]"):
        spread(torch.zeros(4, 4))
    with pytest.raises(ArgumentError, match="`heatmaps`"):
        spread(torch.full((1, 2, 2), torch.nan))
