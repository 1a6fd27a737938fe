"""Changes of colour against torchvision: the same operations on the same draws, and draws of the same distribution."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from contrex.data.views.photometric import NEUTRAL, Look, random_look, recoloured, recoloured_pixels
from contrex.errors import ArgumentError
from contrex.settings import Augmentation

SIMCLR = (0.4, 0.4, 0.4, 0.1)


def looks(num, *, strengths=SIMCLR, probability=0.8, grayscale=0.2, seed=0):
    generator = np.random.default_rng(seed)
    return random_look(num, strengths=strengths, probability=probability, grayscale=grayscale, generator=generator)


def torchvision_look(image, look, index):
    """torchvision's own transforms, given the drawn parameters."""
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    drawn = zip(names, look.factors[index].tolist(), NEUTRAL, strict=True)
    factors = {name: factor if factor != neutral else None for name, factor, neutral in drawn}
    jitter, grey = v2.ColorJitter(*SIMCLR), v2.RandomGrayscale(p=1.0)
    image = jitter.transform(image, {"fn_idx": look.order[index], **factors})
    return grey(image) if look.grey[index] else image


@pytest.fixture
def images():
    return torch.rand(24, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_each_image_is_changed_as_torchvision_changes_it(images):
    look = looks(24)
    found = recoloured(images, look)
    assert 0 < int(look.grey.sum()) < 24
    for index, image in enumerate(images):
        torch.testing.assert_close(found[index], torchvision_look(image, look, index), rtol=0, atol=0)
    assert (found.shape, found.dtype) == (images.shape, images.dtype)
    assert (found.amin() >= 0, found.amax() <= 1) == (True, True)


def test_the_order_matters(images):
    look = looks(1, probability=1.0, grayscale=0.0)
    forwards = recoloured(images[:1], replace(look, order=torch.tensor([[0, 1, 2, 3]])))
    backwards = recoloured(images[:1], replace(look, order=torch.tensor([[3, 2, 1, 0]])))
    assert (forwards - backwards).abs().max() > 1e-3


def test_by_hand():
    """Half as bright, then grey by 0.2989 r + 0.587 g + 0.114 b."""
    image = torch.tensor([0.8, 0.4, 0.2]).reshape(1, 3, 1, 1)
    look = Look(torch.tensor([[0.5, 1.0, 1.0, 0.0]]), torch.tensor([[3, 2, 1, 0]]), torch.tensor([True]))
    luminance = 0.2989 * 0.4 + 0.587 * 0.2 + 0.114 * 0.1
    torch.testing.assert_close(recoloured(image, look).flatten(), torch.full((3,), luminance))


def test_what_is_neutral_is_left_alone(images):
    look = looks(24, probability=0.0, grayscale=0.0)
    assert look.factors.tolist() == [list(NEUTRAL)] * 24
    assert torch.equal(recoloured(images, look), images)


def test_operations_without_strength_are_skipped(images, monkeypatch):
    look = looks(24, strengths=(0.4, 0.0, 0.0, 0.0), probability=1.0, grayscale=0.0)
    for name in ("contrast", "saturation", "hue"):
        monkeypatch.delattr(v2.functional, f"adjust_{name}")
    expected = (images * look.factors[:, 0].float().reshape(-1, 1, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(recoloured(images, look), expected)


def test_pixels_are_rounded_once(images):
    look, stored = looks(24), (images * 255).to(torch.uint8)
    exact = recoloured(stored.float() / 255, look)
    found = recoloured_pixels(stored, look)
    assert found.dtype == torch.uint8
    assert (found.float() / 255 - exact).abs().max() <= 0.5 / 255 + 1e-6


def test_the_ranges_are_torchvisions():
    """Strengths above 1 stop at 0, where a picture is black, grey or flat."""
    strengths = (1.4, 0.4, 0.0, 0.3)
    theirs = v2.ColorJitter(*strengths)
    factors = looks(4000, strengths=strengths, probability=1.0).factors
    for column, (low, high) in ((0, theirs.brightness), (1, theirs.contrast), (3, theirs.hue)):
        drawn = factors[:, column]
        assert low <= drawn.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < drawn.max() <= high
        quantiles = torch.quantile((drawn - low) / (high - low), torch.tensor([0.25, 0.5, 0.75], dtype=drawn.dtype))
        assert quantiles.tolist() == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    assert theirs.saturation is None
    assert set(factors[:, 2].tolist()) == {1.0}


def test_orders_shares_and_independence():
    look = looks(4800, probability=0.8, grayscale=0.2)
    moved = look.factors != torch.tensor(NEUTRAL)
    jittered = moved[:, 0]
    assert torch.equal(moved.all(1), moved.any(1))
    orders = torch.unique(look.order, dim=0, return_counts=True)[1]
    assert len(orders) == 24
    assert (orders.min() > 150, orders.max() < 260) == (True, True)
    assert float(jittered.double().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(look.grey.double().mean()) == pytest.approx(0.2, abs=0.02)
    assert float((jittered & look.grey).double().mean()) == pytest.approx(0.16, abs=0.02)
    correlation = np.corrcoef(look.factors[jittered].T.numpy())
    assert np.abs(correlation - np.eye(4)).max() < 0.06


def test_one_draw_does_not_move_the_others():
    both, grey_only = looks(50, probability=1.0), looks(50, strengths=(0.4, 0, 0, 0), probability=1.0, grayscale=0.5)
    assert torch.equal(both.order, grey_only.order)
    assert torch.equal(both.factors[:, 0], grey_only.factors[:, 0])
    assert bool((grey_only.grey | ~both.grey).all())


def test_stacked_looks(images):
    look = looks(24)
    parts = [Look(look.factors[i : i + 1], look.order[i : i + 1], look.grey[i : i + 1]) for i in range(24)]
    stacked = Look.stack(parts)
    assert len(stacked) == 24
    assert torch.equal(recoloured(images, stacked), recoloured(images, look))


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 3, 4, 4), torch.zeros(2, 4, 4)]
)
def test_wrong_images(wrong):
    with pytest.raises(
        ArgumentError, match=r"`images` must be 2 floating-point pictures \[N,3,H,W\], one per look; got"
    ):
        recoloured(wrong, looks(2))


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("color_jitter", (-0.1, 0, 0, 0), "strengths of at least 0, and of the hue at most 0.5"),
        ("color_jitter", (0, 0, math.nan, 0), "strengths of at least 0"),
        ("color_jitter", (0, math.inf, 0, 0), "strengths of at least 0"),
        ("color_jitter", (0, 0, 0, 0.6), "of the hue at most 0.5"),
        ("jitter_probability", 1.1, "a probability, from 0 to 1"),
        ("grayscale", -0.1, "a probability, from 0 to 1"),
        ("grayscale", math.nan, "a probability, from 0 to 1"),
    ],
)
def test_settings_out_of_range(name, value, message):
    with pytest.raises(ArgumentError, match=rf"`augmentation.{name}` must be .*{message}"):
        Augmentation(**{name: value})


def test_settings_that_change_no_colour():
    assert not Augmentation().recolours
    assert not Augmentation(color_jitter=SIMCLR, jitter_probability=0.0).recolours
    assert Augmentation(color_jitter=(0, 0, 0, 0.1)).recolours
    assert Augmentation(grayscale=0.2).recolours
    assert Augmentation(color_jitter=(2.0, 0, 0, 0.5)).recolours
