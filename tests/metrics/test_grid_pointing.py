from __future__ import annotations

import math

import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import GridPointingGame, grid_pointing_game
from contrex.metrics.grid_pointing import cell_shares
from oracles import grid_pointing as slow


@pytest.mark.parametrize(("size", "shape"), [(2, (4, 4)), (3, (7, 8)), (2, (1, 3)), (3, (9, 6))])
def test_shares_are_the_oracles(size, shape):
    maps = torch.randn(2, size**2, *shape)
    expected = [[slow.share(one, cell, size) for cell, one in enumerate(of_grid)] for of_grid in maps]
    torch.testing.assert_close(grid_pointing_game(maps), torch.tensor(expected, dtype=torch.float64), equal_nan=True)


@pytest.mark.parametrize(("size", "side"), [(2, 14), (3, 21), (3, 9)])
def test_planted_maps(size, side):
    """All heat in the right cell is 100 %, heat everywhere is the cell's area, in the wrong cell is nothing."""
    cell = side // size
    right = torch.zeros(1, size**2, side, side)
    for number in range(size**2):
        row, column = divmod(number, size)
        right[0, number, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = (
            torch.rand(cell, cell) + 0.1
        )
    assert grid_pointing_game(right).tolist() == [[100.0] * size**2]
    assert grid_pointing_game(right.roll(1, dims=1)).tolist() == [[0.0] * size**2]
    torch.testing.assert_close(
        grid_pointing_game(torch.ones_like(right)), torch.full((1, size**2), 100 / size**2).double()
    )
    resized = grid_pointing_game(right, resized_to=(4 * side, 4 * side))
    assert ((resized < 100) & (resized > 70)).all(), "heat runs over the borders when maps are resized first"


def test_evidence_against_a_class_does_not_count_and_no_scale_matters():
    maps = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(grid_pointing_game(1e30 * maps), grid_pointing_game(maps.relu()))
    assert grid_pointing_game(-maps.abs()).isnan().all()


def test_shares_of_cells_add_up():
    for size, side in ((7, 3), (2, 3), (9, 3)):
        torch.testing.assert_close(cell_shares(size, side).sum(0), torch.ones(size).double())


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 1, 4, 4), (4, 4, 4)])
def test_maps_must_be_of_a_grid(shape):
    with pytest.raises(ArgumentError, match=r"must be \[N,M,h,w\] with a map for each of M = 4, 9, 16"):
        grid_pointing_game(torch.ones(shape))


def test_a_grid_has_two_images_on_a_side():
    with pytest.raises(ArgumentError, match="`size` must be at least 2 images"):
        GridPointingGame(size=1)
    metric = GridPointingGame(size=2)
    metric.update(torch.tensor([math.nan, 40.0]), torch.tensor([False, True]))
    assert metric.describe_skipped() == "1 in no grid"
