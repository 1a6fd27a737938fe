import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrex.errors import ArgumentError
from contrex.losses import gcc_loss
from contrex.losses.composite import in_cells, normalised
from oracles import gcc as oracle


@given(
    cells=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_loss_is_the_explicit_one(cells, grid, seed):
    """Any grid, every cell: the value and both maps' gradients."""
    generator = torch.Generator().manual_seed(seed)
    (h, w), num = grid, len(cells)
    maps = torch.randn(num, h, w, generator=generator, dtype=torch.float64).requires_grad_()
    composite = torch.randn(num, 2 * h, 2 * w, generator=generator, dtype=torch.float64).requires_grad_()
    ours = gcc_loss(maps, composite, torch.tensor(cells))
    theirs = oracle.loss(maps, composite, cells)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    for a, b in zip(
        torch.autograd.grad(ours, (maps, composite)), torch.autograd.grad(theirs, (maps, composite)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_by_hand():
    """Own map (1, 3)/4 in cell 1; the composite has half of its heat there: |0.25 - 0.125| + |0.75 - 0.375| + 0.5."""
    own = torch.tensor([[[1.0, 3.0]]])
    found = torch.tensor([[[0.0, 0.0, 1.0, 3.0], [4.0, -9.0, 0.0, 0.0]]])
    assert gcc_loss(own, found, torch.tensor([1])).item() == pytest.approx(1.0 / 8)
    assert gcc_loss(own, found, torch.tensor([2])).item() == pytest.approx((0.25 + 0.75 + 0.5) / 8)


def test_maps_go_into_their_cells():
    maps = torch.arange(1.0, 9).view(4, 1, 2)
    assert in_cells(maps, torch.tensor([0, 1, 2, 3])).tolist() == [
        [[1, 2, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 3, 4], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [5, 6, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 7, 8]],
    ]


def test_scales_of_maps_do_not_count():
    maps, composite, cells = torch.rand(3, 4, 4), torch.rand(3, 8, 8), torch.tensor([3, 0, 2])
    torch.testing.assert_close(gcc_loss(5 * maps, 0.1 * composite, cells), gcc_loss(maps, composite, cells))


def test_the_gradient_flows_through_the_target_too():
    maps = torch.rand(2, 3, 3, requires_grad=True)
    gcc_loss(maps, torch.rand(2, 6, 6), torch.tensor([0, 1])).backward()
    assert maps.grad.abs().amax((1, 2)).min() > 0


def test_empty_maps_stay_finite():
    maps, composite = torch.zeros(2, 3, 3, requires_grad=True), torch.full((2, 6, 6), -1.0, requires_grad=True)
    loss = gcc_loss(maps, composite, torch.tensor([0, 1]))
    loss.backward()
    assert 0 < loss.item() < 1e-7
    assert maps.grad.isfinite().all()
    assert not composite.grad.any()


def test_autocast_and_low_precision_change_nothing():
    maps, composite, cells = torch.rand(2, 4, 4), torch.rand(2, 8, 8), torch.tensor([1, 2])
    expected = gcc_loss(maps, composite, cells)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gcc_loss(maps, composite, cells), expected)
    assert normalised(maps.bfloat16()).dtype == torch.float32


def test_refuses():
    maps, composite, cells = torch.rand(2, 4, 4), torch.rand(2, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ArgumentError, match=r"`heatmaps_composite` must be \[2,8,8\].*got \[2, 7, 7\]. Take an image"):
        gcc_loss(maps, composite[:, :7, :7], cells)
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be floating point, got torch.int64"):
        gcc_loss(maps.long(), composite, cells)
    with pytest.raises(ArgumentError, match="with N >= 1"):
        gcc_loss(maps[:0], composite[:0], cells[:0])
    for wrong in (cells[:1], torch.tensor([0, 4]), torch.tensor([-1, 0])):
        with pytest.raises(ArgumentError, match="`cells` must be 2 numbers from 0 to 3, one per heatmap; got"):
            gcc_loss(maps, composite, wrong)
