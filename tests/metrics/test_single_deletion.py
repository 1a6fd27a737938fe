from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError
from contrex.metrics import single_deletion
from contrex.metrics.removal import baseline_image
from contrex.ops.pixels import without_random_cells
from oracles import single_deletion as slow


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(105, 4)).eval()


@pytest.mark.parametrize(("grid", "baseline"), [(2, "zero"), (3, "mean"), (4, "blur")])
def test_scores_are_the_oracles(model, grid, baseline):
    images, saliency, target = torch.randn(3, 2, 9, 7), torch.randn(3, 9, 7), torch.tensor([0, 3, 1])
    with torch.no_grad():
        rest = baseline_image(images, baseline)
        expected = [
            slow.score(model, image, heat, int(label), grid, own)
            for image, heat, label, own in zip(images, saliency, target, rest, strict=True)
        ]
    found = single_deletion(model, images, saliency, target=target, grid=grid, baseline=baseline, batch_size=2)
    assert found.tolist() == pytest.approx(expected)


def test_a_map_that_is_the_contribution_has_the_highest_score():
    """Of a linear network, pixel times weight is what deleting to zero takes off."""
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 3, bias=False)), torch.randn(2, 3, 4, 4)
    contribution = (images * model[1].weight[1].view(3, 4, 4)).sum(1).detach()
    target = torch.tensor([1, 1])
    assert single_deletion(model, images, contribution, target=target).tolist() == pytest.approx([1, 1])
    assert single_deletion(model, images, -contribution, target=target).tolist() == pytest.approx([-1, -1])
    assert single_deletion(model, images, torch.ones(2, 4, 4), target=target).isnan().all()


@pytest.mark.parametrize("grid", [1, 5])
def test_the_grid_must_fit(model, grid):
    with pytest.raises(ArgumentError, match=f"`grid` must be from 2 to 4 cells on each side, got {grid}"):
        single_deletion(model, torch.randn(1, 2, 4, 7), torch.randn(1, 4, 7), grid=grid)


def test_cells_are_deleted_as_often_as_asked():
    images = torch.ones(4000, 1, 4, 4)
    changed = without_random_cells(images, share=0.5, grid=2, fill=torch.tensor(0.0))
    lost = (changed == 0).flatten(1)
    assert set(lost.sum(1).tolist()) == {0, 4}
    assert lost.any(1).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert lost.double().mean(0).view(4, 4)[::2, ::2].flatten().tolist() == pytest.approx([0.125] * 4, abs=0.02)
    assert torch.equal(without_random_cells(images, share=0.0, grid=2, fill=torch.tensor(0.0)), images)
