import pytest
import torch

from contrex.errors import ArgumentError
from contrex.ops import heatmap


def test_empty_maps_are_told_from_faint_and_negative_ones():
    maps = torch.zeros(3, 2, 2)
    maps[1, 0, 0] = 1e-30
    maps[2, 1, 1] = -1.0
    assert heatmap.is_empty(maps).tolist() == [True, False, False]
    assert heatmap.is_empty(heatmap.positive(maps)).tolist() == [True, False, True]


def test_min_max_of_a_constant_map_is_zero():
    maps = torch.tensor([[[5.0, 5.0]], [[-1.0, 3.0]]])
    assert heatmap.normalise_min_max(maps).tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]


def test_resize_keeps_the_axes_of_a_rectangle():
    maps = torch.arange(6.0).view(1, 2, 3)
    assert heatmap.resize(maps, (4, 9)).shape == (1, 4, 9)
    torch.testing.assert_close(heatmap.resize(maps, (2, 3)), maps)
    with pytest.raises(ArgumentError, match="at least 1 pixel"):
        heatmap.resize(maps, (0, 3))


def test_a_constant_map_stays_constant():
    """Weights that sum to 1 but for rounding would rank its pixels."""
    values = torch.tensor([0.1, 0.3, -3.7e-3, 123.4, -1e6])
    for side in (2, 3, 7):
        for size in ((30, 30), (224, 100), (3, 2)):
            resized = heatmap.resize(values[:, None, None].expand(-1, side, side), size)
            assert resized.equal(values[:, None, None].expand(-1, *size))
    signals = heatmap.resize(values[:, None].expand(-1, 7), (100,))
    assert signals.equal(values[:, None].expand(-1, 100))
