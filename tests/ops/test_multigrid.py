"""Multigrid against the plain solver beside it, which is held against one dense solve in tests/metrics."""

import pytest
import torch

from contrex.ops.multigrid import HarmonicFill, harmonic_fill
from oracles.removal import linear_imputation as dense
from sampling import sampled


def holes(num, height, width):
    """Scattered pixels, a blob, everything but a corner."""
    removed = torch.rand(num, height, width) < 0.7
    removed[1] = False
    removed[1, height // 4 :, width // 3 :] = True
    removed[2] = True
    removed[2, 0, 0] = False
    return removed


@sampled(one_in=2)
@pytest.mark.parametrize("size", [(2, 2), (3, 17), (16, 16), (33, 20), (1, 12)])
def test_multigrid_solves_what_the_plain_solver_does(size):
    images, removed = torch.randn(3, *size, dtype=torch.float64), holes(3, *size)
    filled = HarmonicFill(images, torch.full((3,), 1e-13), max_steps=100)(removed)
    torch.testing.assert_close(filled, harmonic_fill(images, removed), rtol=0, atol=1e-8)
    assert harmonic_fill(images, removed).masked_select(~removed).equal(images.masked_select(~removed))


def test_the_plain_solver_solves_the_dense_system():
    images, removed = torch.randn(3, 9, 7, dtype=torch.float64), holes(3, 9, 7)
    removed[0, 0, 0] = False
    expected = torch.cat([dense(image[None], hole) for image, hole in zip(images, removed, strict=True)])
    torch.testing.assert_close(harmonic_fill(images, removed), expected, rtol=0, atol=1e-8)


def test_where_nothing_or_everything_is_removed():
    images = torch.randn(2, 6, 5)
    nothing = torch.zeros(2, 6, 5, dtype=torch.bool)
    assert harmonic_fill(images, nothing).equal(images)
    means = images.mean((1, 2), keepdim=True).expand_as(images)
    torch.testing.assert_close(harmonic_fill(images, ~nothing), means)
