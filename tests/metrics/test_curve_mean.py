import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import CurveMean
from contrex.metrics.per_sample import bootstrap_interval


def test_each_point_has_its_own_mean_and_interval():
    curves = torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curves[2, 1] = torch.nan
    mean = CurveMean()
    mean.update(curves[:4])
    mean.update(curves[4:].float().double())
    points = mean.points([0, 1, 2], num_bootstrap=40, seed=3)
    for x, value, low, high in points:
        column = curves[:, int(x)]
        assert value == pytest.approx(column.nanmean().item(), abs=1e-7)
        assert (low, high) == pytest.approx(bootstrap_interval(column, num_resamples=40, seed=3), abs=1e-7)
    assert mean.compute().tolist() == pytest.approx([value for _, value, *_ in points])


def test_the_order_of_images_does_not_matter():
    curves = torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    one, other = CurveMean(), CurveMean()
    one.update(curves)
    other.update(curves.flip(0))
    assert one.points([0, 1], num_bootstrap=20, seed=0)[0][2:] == other.points([0, 1], num_bootstrap=20, seed=0)[0][2:]


def test_refuses():
    mean = CurveMean()
    with pytest.raises(ArgumentError, match=r"`curves` must be \[N,P\], one row per image, got \[3\]"):
        mean.update(torch.zeros(3))
    mean.update(torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="`x` must have 3 places as the curves have points, got 2"):
        mean.points([0, 1], num_bootstrap=5, seed=0)
