from __future__ import annotations

import pytest
import torch

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics import HumanAlignment, MapAgreement, agrees_beyond_chance, human_alignment
from oracles.randomization import spearman


def test_alignment_is_the_rank_correlation():
    saliency, human = torch.randn(3, 5, 4), torch.rand(3, 5, 4).round(decimals=1)
    human[1] = torch.nan
    found = human_alignment(saliency, human)
    assert found[1].isnan()
    assert found[[0, 2]].tolist() == pytest.approx([spearman(saliency[i], human[i]) for i in (0, 2)])


def test_planted_maps():
    human = torch.rand(1, 6, 6)
    assert human_alignment(3 * human - 1, human).item() == pytest.approx(1)
    assert human_alignment(-human, human).item() == pytest.approx(-1)
    assert human_alignment(human, torch.ones_like(human)).isnan().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="`human` must have the shape of `saliency`"):
        human_alignment(torch.ones(1, 2, 2), torch.ones(1, 2, 3))
    with pytest.raises(ArgumentError, match="`ceiling` must be a correlation above 0"):
        HumanAlignment(ceiling=1.5)


# --- agreement of networks ------------------------------------------------------------------------------------------


def test_networks_agree_where_their_maps_of_an_image_are_more_alike_than_those_of_two():
    chance = torch.rand(40)
    assert agrees_beyond_chance(chance + 0.2, chance) is True
    assert agrees_beyond_chance(chance.roll(1), chance) is False
    assert agrees_beyond_chance(chance[:1], chance[:1]) is None
    metric = MapAgreement("reproducibility", "spearman")
    metric.update(torch.tensor([0.5, torch.nan]), torch.tensor([0.25, 0.75]))
    assert (metric.name, metric.compute().item(), metric.chance()) == ("reproducibility_spearman", 0.5, 0.5)


def test_what_agreement_does_not_know_is_refused():
    with pytest.raises(UnknownNameError, match="`relation` must be one of repeatability"):
        MapAgreement("repeatable")
    with pytest.raises(UnknownNameError, match="`kind` must be one of spearman"):
        MapAgreement(kind="pearson")
    with pytest.raises(ArgumentError, match=r"`similarities` and `chance` must be \[N\]"):
        agrees_beyond_chance(torch.ones(2), torch.ones(3))
