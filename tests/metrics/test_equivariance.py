from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics.equivariance import EquivarianceError, crop_of_strength, equivariance_similarity
from contrex.ops.geometry import Crop, random_crop, warp_heatmap
from oracles import equivariance as slow

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)


def drawn(num, size, seed):
    return random_crop(num, size, scale=(0.05, 1.0), ratio=(0.5, 2.0), flip=0.5, generator=np.random.default_rng(seed))


def boxes(crop):
    return list(zip(*(v.tolist() for v in (crop.top, crop.left, crop.height, crop.width, crop.flip)), strict=True))


def only_flip(num, size):
    crop = Crop.identity(num, size)
    return Crop(crop.top, crop.left, crop.height, crop.width, ~crop.flip, size)


@pytest.mark.parametrize(
    ("cells", "size"), [((7, 7), (32, 32)), ((3, 5), (20, 14)), ((1, 1), (9, 9)), ((8, 8), (8, 8))]
)
def test_oracle(cells, size):
    maps, moved, crop = torch.randn(6, *cells), torch.randn(6, *cells), drawn(6, size, 0)
    similarities = equivariance_similarity(maps, moved, crop, size=size)
    expected = [slow.similarity(*case, size) for case in zip(maps, moved, boxes(crop), strict=True)]
    assert similarities.dtype == torch.float64
    torch.testing.assert_close(similarities, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_another_size_than_the_crops():
    """Crops in pixels of the 32x32 image, maps compared at 16x16: an even box is the half-size box there."""
    maps, moved = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    fields = [torch.tensor(v) for v in ([0, 8], [4, 0], [16, 24], [28, 32])]
    flip = torch.tensor([True, False])
    large = Crop(*fields, flip, 32)
    small = Crop(*(v // 2 for v in fields), flip, 16)
    expected = equivariance_similarity(maps, moved, small, size=16)
    torch.testing.assert_close(equivariance_similarity(maps, moved, large, size=16), expected)


def test_what_is_perfectly_equivariant():
    maps = torch.randn(4, 6, 6, dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(equivariance_similarity(maps, maps, Crop.identity(4, 24), size=24), ones)
    torch.testing.assert_close(equivariance_similarity(maps, maps.flip(2), only_flip(4, 24), size=24), ones)
    torch.testing.assert_close(equivariance_similarity(maps, -maps, Crop.identity(4, 24), size=24), -ones)
    constant = torch.ones(4, 6, 6)
    torch.testing.assert_close(equivariance_similarity(constant, constant, drawn(4, 24, 1), size=24), ones)
    assert (equivariance_similarity(maps, maps, only_flip(4, 24), size=24) < 0.9).all()


def test_at_image_size_it_is_the_cosine_of_the_warped_map():
    maps, moved, crop = torch.randn(3, 16, 16).double(), torch.randn(3, 16, 16).double(), drawn(3, 16, 2)
    expected = torch.nn.functional.cosine_similarity(warp_heatmap(maps, crop).flatten(1), moved.flatten(1))
    torch.testing.assert_close(equivariance_similarity(maps, moved, crop, size=16), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e30])
def test_scale_does_not_matter(scale):
    maps, moved, crop = torch.randn(3, 5, 5), torch.randn(3, 5, 5), drawn(3, 20, 3)
    expected = equivariance_similarity(maps, moved, crop, size=20)
    torch.testing.assert_close(
        equivariance_similarity(maps * scale, moved / scale, crop, size=20), expected, rtol=0, atol=1e-6
    )


def test_empty_maps_are_nan():
    maps = torch.ones(4, 4, 4)
    moved = torch.ones(4, 4, 4)
    maps[0], moved[1] = 0, 0
    maps[2, :, :] = 0
    maps[2, 3, 3] = 1  # outside the crop, even after upsampling
    corner = Crop(*(torch.full((4,), v) for v in (0, 0, 4, 4)), torch.zeros(4).bool(), 16)
    similarities = equivariance_similarity(maps, moved, corner, size=16)
    assert similarities.isnan().tolist() == [True, True, True, False]


def test_batch_order_and_no_graph():
    maps, moved, crop = torch.randn(5, 4, 4), torch.randn(5, 4, 4), drawn(5, 16, 4)
    order = torch.tensor([3, 1, 4, 0, 2])
    similarities = equivariance_similarity(maps.requires_grad_(), moved, crop, size=16)
    assert not similarities.requires_grad
    permuted = equivariance_similarity(maps[order], moved[order], crop[order], size=16)
    torch.testing.assert_close(permuted, similarities[order])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"heatmaps": torch.ones(2, 4, 5)},
            r"must have one shape \[N,h,w\] with N >= 1, got \[2, 4, 5\] and \[2, 4, 4\]",
        ),
        ({"heatmaps": torch.ones(4, 4)}, r"`heatmaps` and `moved_heatmaps` must have one shape \[N,h,w\]"),
        ({"heatmaps": torch.full((2, 4, 4), torch.nan)}, r"`heatmaps` must be finite, got NaN or infinity at index 0"),
        ({"moved_heatmaps": torch.full((2, 4, 4), torch.inf)}, r"`moved_heatmaps` must be finite"),
        ({"crops": Crop.identity(3, 16)}, r"`crops` must hold one transform per heatmap, 2; got 3"),
        ({"size": (16, 0)}, r"`size` must be at least 1 pixel on each side, got \(16, 0\)"),
    ],
)
def test_errors(changes, message):
    arguments = {"heatmaps": torch.ones(2, 4, 4), "moved_heatmaps": torch.ones(2, 4, 4), "crops": Crop.identity(2, 16)}
    with pytest.raises(ArgumentError, match=message):
        equivariance_similarity(**{**arguments, "size": 16, **changes})


# --- strength -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, (60, 100), (33, 17)])
@pytest.mark.parametrize("share", SHARES)
def test_crops_have_their_share_and_the_image_s_shape(share, size):
    height, width = (size, size) if isinstance(size, int) else size
    crop = crop_of_strength(50, size, share=share, generator=np.random.default_rng(0)).check()
    assert crop.height.tolist() == [round(math.sqrt(share) * height)] * 50
    assert crop.width.tolist() == [round(math.sqrt(share) * width)] * 50
    assert not crop.flip.any()
    free = height - int(crop.height[0])
    assert (int(crop.top.min()), int(crop.top.max())) == (0, free) or (free > 10 and crop.top.unique().numel() > 10)


def test_full_share_changes_nothing_but_the_flip():
    crop = crop_of_strength(3, (24, 32), share=1.0, generator=np.random.default_rng(0))
    assert boxes(crop) == [(0, 0, 24, 32, False)] * 3
    assert crop_of_strength(3, 24, share=1.0, flip=True, generator=np.random.default_rng(0)).flip.all()


def test_crops_are_drawn_from_the_generator():
    def one(seed):
        return boxes(crop_of_strength(4, 64, share=0.4, generator=np.random.default_rng(seed)))

    assert one(0) == one(0)
    assert one(0) != one(1)
    assert len(set(one(0))) > 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_share_error(share):
    with pytest.raises(ArgumentError, match=r"`share` must be a share of the area above 0 and at most 1, got"):
        crop_of_strength(1, 8, share=share, generator=np.random.default_rng(0))


# --- the metric -----------------------------------------------------------------------------------------------------


def test_metric():
    metrics = [EquivarianceError(share) for share in SHARES] + [EquivarianceError(0.2, flip=True)]
    assert [metric.name for metric in metrics] == [
        *(f"equivariance_error_{percent}" for percent in (100, 80, 60, 40, 20)),
        "equivariance_error_20_flip",
    ]
    assert metrics[5].title == "Equivariance error, 20 % crop and flip"
    metric = metrics[1]
    metric.update(torch.tensor([1.0, 0.25]))
    metric.update(torch.tensor([-1.0, math.nan]))
    assert metric.values()[:3].tolist() == [0.0, 0.75, 2.0]
    assert metric.compute().item() == pytest.approx(2.75 / 3)
    assert not metric.higher_is_better


def test_metric_errors():
    with pytest.raises(ArgumentError, match=r"`share` must be a whole percentage of the area .* got 0.333"):
        EquivarianceError(0.333)
    with pytest.raises(ArgumentError, match=r"`share` must be a whole percentage .* got 0"):
        EquivarianceError(0.0)
    metric = EquivarianceError(0.4)
    with pytest.raises(ArgumentError, match=r"`similarities` must be \[N\], one per image, got \[1, 2\]"):
        metric.update(torch.zeros(1, 2))
    with pytest.raises(ArgumentError, match=r"`similarities` must be cosines in -1..1, got 1.5 at index 1"):
        metric.update(torch.tensor([0.0, 1.5]))
    assert not len(metric.values())
