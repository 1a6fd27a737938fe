"""What the losses are given: convenient things are coerced once, others are refused in our words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contrex.errors import ArgumentError
from contrex.explain import Explanation
from contrex.losses import cgc_loss, cgc_losses, gcc_loss, l2_consistency_loss, supcon_loss
from contrex.ops.geometry import Crop

FEATURES = F.normalize(torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
MAPS = torch.rand(4, 7, 7, generator=torch.Generator().manual_seed(1))
CROP = Crop.identity(4, 56)


@pytest.mark.parametrize(
    "labels", [[0, 1, 0, 1], (0, 1, 0, 1), np.array([0, 1, 0, 1]), torch.tensor([0, 1, 0, 1]).int()]
)
def test_labels_may_be_any_integers(labels):
    expected = supcon_loss(FEATURES, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(supcon_loss(FEATURES, labels), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog", "cat", "dog"], r"`labels` must be integers, one per image; got \['cat'"),
        ([0.0, 1.0, 0.0, 1.0], r"`labels` must be integers, one per image; got torch.float32 \[4\]"),
        ([True, False, True, False], "`labels` must be integers, one per image; got torch.bool"),
        ([0, 1, 0], r"`labels` must be one per image that is no background, 4; got \[3\]"),
        ([[0, 1, 0, 1]], r"no background, 4; got \[1, 4\]"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ArgumentError, match=message):
        supcon_loss(FEATURES, labels)


def test_features_that_are_no_embeddings_are_refused():
    with pytest.raises(ArgumentError, match=r"`features` must be a tensor \[n,V,D\], got list: torch.stack a list"):
        supcon_loss(list(FEATURES), [0, 1, 0, 1])
    endless = FEATURES.clone()
    endless[2, 1, 0] = torch.inf
    with pytest.raises(ArgumentError, match="that of image 2, view 1 is inf"):
        supcon_loss(endless, [0, 1, 0, 1])


@pytest.mark.parametrize("loss", [cgc_loss, cgc_losses, l2_consistency_loss])
def test_maps_that_cannot_be_compared_are_refused(loss):
    explanation = Explanation(MAPS, torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ArgumentError, match="`heatmaps` must be a tensor, got Explanation: the `heatmap` of"):
        loss(explanation, MAPS, CROP)
    with pytest.raises(ArgumentError, match=r"`heatmaps_view` must be floating point, got torch.int64"):
        loss(MAPS, MAPS.long(), CROP)
    with pytest.raises(ArgumentError, match="`heatmaps_view` is on meta, what it is compared with on cpu: move one"):
        loss(MAPS, MAPS.to("meta"), CROP)
    with pytest.raises(ArgumentError, match=r"`crop` must be a contrex.ops.geometry.Crop, got NoneType"):
        loss(MAPS, MAPS, None)
    with_nan = MAPS.index_fill(0, torch.tensor([1]), torch.nan)
    assert bool(loss(with_nan, MAPS, CROP).isnan().any())


def test_extra_negatives_are_checked_too():
    with pytest.raises(ArgumentError, match=r"`extra_negatives` must be floating point, got torch.uint8"):
        cgc_loss(MAPS, MAPS, CROP, extra_negatives=torch.zeros(2, 7, 7, dtype=torch.uint8))
    with pytest.raises(ArgumentError, match="`extra_negatives` is on meta"):
        cgc_loss(MAPS, MAPS, CROP, extra_negatives=MAPS.to("meta"))


def test_cells_may_be_a_list_and_other_composites_are_refused():
    composite = torch.rand(4, 14, 14)
    torch.testing.assert_close(gcc_loss(MAPS, composite, [0, 1, 2, 3]), gcc_loss(MAPS, composite, torch.arange(4)))
    with pytest.raises(ArgumentError, match=r"`cells` must be integers, one per image; got torch.float32"):
        gcc_loss(MAPS, composite, [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="`heatmaps_composite` must be a tensor, got list"):
        gcc_loss(MAPS, list(composite), [0, 1, 2, 3])
    with pytest.raises(ArgumentError, match="`heatmaps_composite` is on meta"):
        gcc_loss(MAPS, composite.to("meta"), [0, 1, 2, 3])
    assert gcc_loss(MAPS * torch.nan, composite, [0, 1, 2, 3]).isnan()
