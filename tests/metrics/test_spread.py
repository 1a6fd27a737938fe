"""The spread of a heatmap against its formula, and maps whose spread is known."""

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import Spread, at_spread, spread
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


@pytest.mark.parametrize("share", [0.1, pytest.param(0.25, marks=pytest.mark.slow), 0.7])
def test_a_map_brought_to_a_spread_is_its_definition(share):
    maps = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = [oracle.at_spread(one.tolist(), share) for one in maps]
    found = at_spread(maps, share)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=2e-3, rtol=0)
    torch.testing.assert_close(spread(found), torch.full((3,), share, dtype=torch.float64), atol=1e-9, rtol=0)


def test_neither_a_factor_nor_a_number_changes_a_map_of_one_spread():
    maps = torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = at_spread(maps, 0.3)
    for factor, number in ((1, 40), (1e-30, 0), (1e20, -3e20)):
        torch.testing.assert_close(at_spread(factor * maps + number, 0.3) / factor, found, atol=1e-9, rtol=1e-9)


def test_ties_and_even_maps():
    maps = torch.tensor([[[2.0, 2.0], [2.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]], [[9.0, 1.0], [1.0, 1.0]]])
    found = at_spread(maps, 0.5)
    positive = found[0].relu()
    assert positive[1, 1] == 0
    torch.testing.assert_close(positive.flatten()[:3], positive[0, 0].expand(3))
    assert positive[0, 0] > 0
    assert found[1].isnan().all()
    torch.testing.assert_close(spread(found[2:]), torch.tensor([0.5], dtype=torch.float64))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, float("nan")])
def test_a_spread_that_no_map_can_have(share):
    with pytest.raises(ArgumentError, match="`share` must be between 0 and 1, got"):
        at_spread(torch.eye(2)[None], share)
