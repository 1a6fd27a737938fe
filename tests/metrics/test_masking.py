from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur as torchvision_blur

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics.masking import (
    PROTOCOLS,
    SIGNS,
    kept_pixels,
    upsample,
)
from contrex.metrics.removal import PAIR_BASELINES, baseline_images
from contrex.ops.heatmap import resize
from contrex.ops.pixels import reflected_blur
from oracles import masking as slow
from sampling import sampled

EVERY = list(itertools.product(SIGNS, PROTOCOLS))


@pytest.fixture
def pair():
    """Maps with ties and zeros, of different areas."""
    heatmap = torch.randint(-3, 5, (4, 5, 6)).double()
    return heatmap, torch.randint(-4, 3, (4, 5, 6)).double()


@sampled(one_in=3)
@pytest.mark.parametrize(("sign", "protocol"), EVERY)
def test_oracle(sign, protocol, pair):
    for heatmap, other in (pair, pair[::-1]):
        expected = [
            slow.kept(h.flatten().tolist(), o.flatten().tolist(), sign, protocol)
            for h, o in zip(heatmap, other, strict=True)
        ]
        assert kept_pixels(heatmap, other, sign=sign, protocol=protocol).flatten(1).tolist() == expected


@pytest.mark.parametrize("target", ["t1", "t2"])
@pytest.mark.parametrize("sign", SIGNS)
def test_golden(golden, sign, target):
    arrays = golden("equal_mask_a")
    maps = [torch.tensor(arrays[f"saliency_{score}_{target}"]) for score in ("logit", "probability")]
    for number, (heatmap, other) in zip(arrays[f"kept_pixels_{sign}_{target}"], (maps, maps[::-1]), strict=True):
        kept = kept_pixels(heatmap, other, sign=sign, protocol="published-code")
        assert int(kept[0].sum()) == int(number)


def test_by_hand():
    heatmap = torch.tensor([[[5.0, 4.0, 3.0, 2.0, -1.0, -2.0]]])
    other = torch.tensor([[[-4.0, -3.0, -2.0, 0.0, 1.0, 6.0]]])
    assert kept_pixels(heatmap, other, sign="positive").int().tolist() == [[[1, 1, 0, 0, 0, 0]]]
    assert kept_pixels(other, heatmap, sign="positive").int().tolist() == [[[0, 0, 0, 0, 1, 1]]]
    assert kept_pixels(heatmap, other, sign="negative").int().tolist() == [[[0, 0, 0, 0, 1, 1]]]
    assert kept_pixels(other, heatmap, sign="negative").int().tolist() == [[[1, 1, 0, 0, 0, 0]]]
    code = {"protocol": "published-code"}
    assert kept_pixels(heatmap, other, sign="positive", **code).int().tolist() == [[[1, 1, 1, 1, 0, 0]]]
    # three pixels of `other` are negative, so two are replaced: the published code is one short
    assert kept_pixels(heatmap, other, sign="negative", **code).int().tolist() == [[[0, 0, 1, 1, 1, 1]]]


@pytest.mark.parametrize("sign", SIGNS)
def test_both_maps_keep_equally_many(sign, pair):
    heatmap, other = pair
    for protocol in ("same-area", "published-code"):
        numbers = [
            kept_pixels(*maps, sign=sign, protocol=protocol).flatten(1).sum(dim=1) for maps in (pair, pair[::-1])
        ]
        assert numbers[0].equal(numbers[1])
    paper = [kept_pixels(m, sign=sign, protocol="paper").flatten(1).sum(dim=1) for m in pair]
    assert not paper[0].equal(paper[1])
    same = kept_pixels(heatmap, other, sign=sign)
    assert same.flatten(1).sum(dim=1).equal(torch.minimum(*paper))


@pytest.mark.parametrize("sign", SIGNS)
def test_same_area_keeps_only_pixels_of_the_sign(sign, pair):
    kept, own = kept_pixels(*pair, sign=sign), kept_pixels(pair[0], sign=sign, protocol="paper")
    assert not (kept & ~own).any()


@pytest.mark.parametrize("protocol", ["same-area", "paper"])
def test_negating_both_maps_swaps_the_signs(protocol):
    heatmap, other = torch.randn(3, 4, 5), torch.randn(3, 4, 5)  # no ties
    negated = kept_pixels(-heatmap, -other, sign="negative", protocol=protocol)
    assert kept_pixels(heatmap, other, sign="positive", protocol=protocol).equal(negated)


def test_the_map_with_itself_is_the_paper(pair):
    for sign in SIGNS:
        own = kept_pixels(pair[0], pair[0], sign=sign)
        assert own.equal(kept_pixels(pair[0], sign=sign, protocol="paper"))


@sampled(one_in=3)
@pytest.mark.parametrize(("sign", "protocol"), EVERY)
def test_permuting_and_scaling(sign, protocol, pair):
    order = torch.tensor([2, 0, 3, 1])
    kept = kept_pixels(*pair, sign=sign, protocol=protocol)
    assert kept_pixels(*(m[order] for m in pair), sign=sign, protocol=protocol).equal(kept[order])
    assert kept_pixels(1e-9 * pair[0], 1e9 * pair[1], sign=sign, protocol=protocol).equal(kept)


def test_ties_go_by_pixel_index():
    flat, one = torch.ones(1, 2, 3), torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    assert kept_pixels(flat, one, sign="positive").int().tolist() == [[[1, 1, 0], [0, 0, 0]]]
    assert kept_pixels(-flat, -one, sign="negative").int().tolist() == [[[1, 1, 0], [0, 0, 0]]]
    assert kept_pixels(flat, one, sign="positive", protocol="published-code").int().tolist() == [[[0, 0, 1], [1, 1, 1]]]


def test_maps_without_the_sign():
    rectified, other = torch.rand(1, 3, 3) + 0.1, torch.randn(1, 3, 3)
    assert not kept_pixels(rectified, other, sign="negative").any()
    assert not kept_pixels(-rectified, other, sign="positive").any()
    assert kept_pixels(rectified, rectified, sign="negative", protocol="published-code").all()
    assert kept_pixels(-rectified, other, sign="positive", protocol="published-code").all()


MAP = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((MAP, MAP), {"sign": "pos"}, r"`sign` must be one of positive, negative; got 'pos'. Did you mean 'positive'"),
        ((MAP, MAP), {"protocol": "equal"}, r"`protocol` must be one of same-area, paper, published-code; got 'equal'"),
        (
            (MAP,),
            {},
            r"`other` is needed by protocol 'same-area', .* pass the map to compare with, or protocol=\"paper\"",
        ),
        ((MAP,), {"protocol": "published-code"}, r"`other` is needed by protocol 'published-code'"),
        ((MAP[0], MAP[0]), {}, r"`heatmap` must be \[N,H,W\] with N >= 1, got \[3, 4\]"),
        ((MAP[:0], MAP[:0]), {}, r"with N >= 1, got \[0, 3, 4\]"),
        ((MAP, MAP.mT), {}, r"`other` must be \[2, 3, 4\] as `heatmap`, got \[2, 4, 3\]"),
        ((MAP * torch.nan, MAP), {}, r"`heatmap` must not be NaN, got NaN at index 0"),
        ((MAP, MAP * torch.nan), {}, r"`other` must not be NaN, got NaN at index 0"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ArgumentError, match=message):
        kept_pixels(*arguments, **options)


# --- resizing and baselines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 9), (3, 4), (1, 5), (13, 2)])
def test_upsample_oracle(size):
    heatmap = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    expected = torch.tensor([[slow.upsampled(m.tolist(), *size) for m in two] for two in heatmap], dtype=torch.float64)
    torch.testing.assert_close(upsample(heatmap, size), expected, rtol=1e-12, atol=1e-12)


def test_upsample_is_not_the_other_resize():
    heatmap = torch.randn(1, 3, 3)
    assert not torch.allclose(upsample(heatmap, (9, 9)), resize(heatmap, 9))
    assert upsample(heatmap.bfloat16(), (9, 9)).dtype == torch.float32


@pytest.mark.parametrize(("sigma", "kernel_size"), [(0.7, 5), (3.0, 3), (2.0, 13)])
def test_blur_oracle(sigma, kernel_size):
    images = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    expected = torch.tensor([[slow.blur(c.tolist(), sigma, kernel_size) for c in images[0]]], dtype=torch.float64)
    torch.testing.assert_close(reflected_blur(images, sigma, kernel_size), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("sigma", "kernel"), [(10.0, {}), (20.0, {"kernel_size": 31})])
def test_blur_is_torchvisions(sigma, kernel):
    images, side = torch.randn(1, 1, 51, 53, dtype=torch.float64), kernel.get("kernel_size", 101)
    expected = torchvision_blur(images, [side, side], [sigma, sigma])
    torch.testing.assert_close(reflected_blur(images, sigma, **kernel), expected, rtol=1e-10, atol=1e-10)


def test_each_image_has_its_own_sigma():
    images, sigma = torch.randn(3, 2, 8, 9), torch.tensor([0.5, 2.0, 9.0])
    single = torch.cat([reflected_blur(images[i : i + 1], float(sigma[i]), 5) for i in range(3)])
    torch.testing.assert_close(reflected_blur(images, sigma, 5), single)


def test_blur_of_one_pixel_and_of_a_constant():
    assert reflected_blur(torch.full((1, 1, 1, 1), 3.0)).item() == pytest.approx(3)
    torch.testing.assert_close(reflected_blur(torch.full((1, 1, 6, 7), 3.0)), torch.full((1, 1, 6, 7), 3.0))


def test_baselines():
    images = torch.randn(2, 3, 8, 9)
    made = baseline_images(images, sigma=torch.tensor([1.0, 2.0]))
    assert tuple(made) == tuple(PAIR_BASELINES)
    assert made["blur"].equal(reflected_blur(images, torch.tensor([1.0, 2.0])))
    assert made["zero"].expand_as(images).equal(torch.zeros_like(images))
    np.testing.assert_allclose(made["mean"].numpy()[:, :, 0, 0], images.numpy().mean(axis=(2, 3)), rtol=1e-5, atol=1e-7)
    with pytest.raises(UnknownNameError, match=r"`names` must be one of blur, zero, mean; got 'black'"):
        baseline_images(images, ["black"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 4, 4),), r"`images` must be floating point \[N,C,H,W\], got torch.float32 \[3, 4, 4\]"),
        ((torch.zeros(1, 3, 4, 4).long(),), r"`images` must be floating point \[N,C,H,W\], got torch.int64"),
        ((torch.zeros(1, 3, 4, 4), 0.0), r"`sigma` must be positive, one number or one for each of the 1, got 0"),
        ((torch.zeros(2, 3, 4, 4), torch.ones(3)), r"`sigma` must be positive, one number or one for each of the 2"),
        ((torch.zeros(1, 3, 4, 4), torch.nan), r"`sigma` must be positive"),
        ((torch.zeros(1, 3, 4, 4), 1.0, 4), r"`kernel_size` must be a positive odd number of pixels, got 4"),
    ],
)
def test_blur_errors(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        reflected_blur(*arguments)
