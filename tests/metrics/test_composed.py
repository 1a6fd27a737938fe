from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics import ComposedScore, adcc, arcc, coherency, complexity, road_difference, unit_maps
from contrex.metrics.removal import imputation_noise
from oracles import composed as slow


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 4)).eval()


def test_parts_are_the_oracles():
    maps, others = torch.randn(2, 3, 4, 5)
    ours, theirs = unit_maps(maps, (8, 10)), unit_maps(others, (8, 10))
    for place, (one, other) in enumerate(zip(maps, others, strict=True)):
        first, second = slow.unit(one, (8, 10)), slow.unit(other, (8, 10))
        assert coherency(ours, theirs)[place].item() == pytest.approx(slow.coherency(first, second), abs=1e-6)
        assert complexity(ours)[place].item() == pytest.approx(slow.complexity(first), abs=1e-6)


def test_scores_are_harmonic_means():
    parts = torch.rand(3, 5).double()
    found = adcc(parts[0], 1 - parts[1], 1 - parts[2])
    assert found.tolist() == pytest.approx([slow.harmonic(*column) for column in parts.T.tolist()])
    torch.testing.assert_close(arcc(parts[0], 1 - parts[1], parts[2]), found)
    assert arcc(parts[0], parts[1], torch.tensor([-0.5] * 5)).tolist() == [0.0] * 5, "a harmful order scores nothing"


def test_a_map_that_covers_everything_and_one_that_changes_score_nothing():
    one = torch.ones(1).double()
    assert adcc(one, one, 0 * one).item() == 0
    assert adcc(0 * one, 0 * one, 0 * one).item() == 0
    assert adcc(one, 0 * one, 0 * one).item() == 1


def test_constant_maps_have_no_score_and_lost_ones_no_coherency():
    some, none = unit_maps(torch.rand(1, 4, 4), (8, 8)), unit_maps(-torch.rand(1, 4, 4), (8, 8))
    assert coherency(none, some).isnan().all()
    assert coherency(some, none).tolist() == [0.0]
    assert complexity(none).isnan().all()


def test_road_is_the_oracles(model):
    images, saliency = torch.randn(3, 2, 8, 6), torch.randn(3, 8, 6)
    noise = imputation_noise(images, [1, 2, 3]).double()
    found = road_difference(model, images, saliency, fractions=(0.25, 0.5), seeds=[1, 2, 3], batch_size=2)
    with torch.no_grad():
        target = model(images).argmax(1)
        expected = [
            slow.road(model, image, heat, int(label), (0.25, 0.5), own)
            for image, heat, label, own in zip(images, saliency, target, noise, strict=True)
        ]
    assert found.tolist() == pytest.approx(expected, abs=2e-3)
    opposite = road_difference(model, images, -saliency, fractions=(0.25, 0.5), seeds=[1, 2, 3])
    torch.testing.assert_close(opposite, -found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [30, 96, 224])
def test_a_constant_map_is_none_to_judge(side):
    """Whatever its value, and however large the image: not one that rounding has stretched to 0..1."""
    maps = torch.tensor([0.1, 123.4, 0.0, -2.0])[:, None, None].expand(-1, 7, 7)
    assert unit_maps(maps, (side, side)).isnan().all()


def test_what_does_not_fit_is_refused(model):
    images, saliency = torch.randn(1, 2, 8, 6), torch.randn(1, 8, 6)
    with pytest.raises(ArgumentError, match="`fractions` must be one share of the pixels or more"):
        road_difference(model, images, saliency, fractions=(0.5, 1.0))
    with pytest.raises(ArgumentError, match=r"coherency must be \[N\] in 0..1"):
        adcc(torch.tensor([1.5]), torch.tensor([0.5]), torch.tensor([0.5]))
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be \[N,h,w\]"):
        unit_maps(torch.ones(3, 3), (3, 3))
    with pytest.raises(ArgumentError, match="`maps` and `maps_of_masked` must have one shape"):
        coherency(torch.ones(1, 2, 2), torch.ones(1, 2, 3))
    with pytest.raises(UnknownNameError, match="`measure` must be one of arcc"):
        ComposedScore("acc")
