import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrex.errors import ArgumentError, UnknownNameError
from contrex.losses import cgc_loss, cgc_losses, l2_consistency_loss
from contrex.ops.geometry import Crop, random_crop
from oracles import consistency as oracle

VARIANTS = ("paper", "published-code")


def drawn(num, size, seed):
    return random_crop(num, size, scale=(0.05, 1.0), ratio=(0.5, 2.0), flip=0.5, generator=np.random.default_rng(seed))


def boxes(crop):
    sides = (crop.top, crop.left, crop.height, crop.width, crop.flip)
    return list(zip(*(side.tolist() for side in sides), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    num=st.integers(1, 4),
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    extra=st.integers(0, 3),
    temperature=st.floats(0.05, 2.0),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=15, deadline=None)
def test_loss_is_the_explicit_one(variant, num, cells, size, extra, temperature, seed):
    """Any size, non-square maps and images, any boxes: values to 1e-9 and gradients to 1e-7, in float64."""
    generator = torch.Generator().manual_seed(seed)
    maps, views = (
        torch.randn(num, *cells, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    further = torch.randn(extra, *cells, generator=generator, dtype=torch.float64) if extra else None
    crop = drawn(num, size, seed)
    ours = cgc_losses(maps, views, crop, size=size, temperature=temperature, variant=variant, extra_negatives=further)
    theirs = oracle.cgc_losses(
        maps, views, boxes(crop), size=size, temperature=temperature, variant=variant, extra=further
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(ours.sum(), (maps, views), allow_unused=True)
    theirs = torch.autograd.grad(theirs.sum(), (maps, views), allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_values_and_gradients(golden, variant):
    g = golden("cgc_a")
    key = {"paper": "paper", "published-code": "reference_code"}[variant]
    value = {"paper": "loss_paper_equation_mean", "published-code": "loss_reference_code"}[variant]
    leaves = [torch.from_numpy(g[k]).double().requires_grad_() for k in ("activations", "activations_view", "weight")]
    maps, views = heatmaps(*leaves, torch.from_numpy(g["target"]))
    loss = cgc_loss(maps, views, golden_crop(g), temperature=float(g["tau"]), size=int(g["size"]), variant=variant)
    assert loss.item() == pytest.approx(float(g[value]), rel=1e-8)
    for name, gradient in zip(
        ("activations", "activations_view", "weight"), torch.autograd.grad(loss, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, torch.from_numpy(g[f"grad_{key}_{name}"]), rtol=1e-6, atol=1e-12)


def test_golden_loss_in_float32(golden):
    g = golden("cgc_a")
    leaves = [torch.from_numpy(g[k]).float() for k in ("activations", "activations_view", "weight")]
    maps, views = heatmaps(*leaves, torch.from_numpy(g["target"]))
    assert cgc_loss(maps, views, golden_crop(g)).item() == pytest.approx(float(g["loss_paper_equation_mean"]), rel=1e-5)


def test_golden_l2(golden):
    g = golden("cgc_a")
    leaves = [torch.from_numpy(g[k]).double() for k in ("activations", "activations_view", "weight")]
    maps, views = heatmaps(*leaves, torch.from_numpy(g["target"]))
    loss = l2_consistency_loss(maps, views, golden_crop(g), variant="published-code")
    assert loss.item() == pytest.approx(float(g["loss_l2_reference_code"]), rel=1e-8)


def heatmaps(activations, activations_view, weight, target):
    cells = activations.shape[2] * activations.shape[3]
    row = weight[target.long()][:, :, None, None] / cells
    return (row * activations).sum(1), (row * activations_view).sum(1)


def golden_crop(g):
    return Crop(*(torch.from_numpy(g[k]) for k in ("top", "left", "height", "width", "flip")), size=int(g["size"]))


def test_l2_is_the_explicit_one():
    maps, views = (torch.randn(5, 3, 4, dtype=torch.float64) for _ in range(2))
    crop = drawn(5, (20, 24), 3)
    expected = oracle.l2_loss(maps, views, boxes(crop), (20, 24))
    torch.testing.assert_close(l2_consistency_loss(maps, views, crop, size=(20, 24)), expected)
    averaged = l2_consistency_loss(maps, views, crop, size=(20, 24), variant="published-code")
    torch.testing.assert_close(averaged, expected / (20 * 24))


def test_a_crop_in_other_pixels_is_scaled():
    """Boxes at 112 and a loss at 224 are the same transform as boxes at 224."""
    maps, views = (torch.rand(3, 7, 7, dtype=torch.float64) for _ in range(2))
    small = drawn(3, 112, 0)
    large = Crop(2 * small.top, 2 * small.left, 2 * small.height, 2 * small.width, small.flip, 224)
    torch.testing.assert_close(cgc_loss(maps, views, small, size=224), cgc_loss(maps, views, large, size=224))


def test_gradcheck():
    maps, views = (torch.rand(3, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    crop = drawn(3, 12, 0)
    assert torch.autograd.gradcheck(lambda a, b: cgc_loss(a, b, crop, size=12), (maps, views))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_image_has_no_negatives(variant):
    maps = torch.rand(1, 7, 7, requires_grad=True)
    loss = cgc_loss(maps, maps * 2, drawn(1, 224, 0), variant=variant)
    loss.backward()
    assert loss.item() == 0
    assert maps.grad.abs().max() == 0
    extra = torch.rand(2, 7, 7)
    assert cgc_loss(maps, maps, drawn(1, 224, 0), variant=variant, extra_negatives=extra).item() > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_maps_without_positive_cells_count_as_uniform(variant, value):
    maps = torch.full((4, 7, 7), value, requires_grad=True)
    loss = cgc_loss(maps, maps, drawn(4, 224, 0), variant=variant)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), rel=1e-5)
    assert maps.grad.abs().max() == 0


def test_faint_maps_stay_finite():
    maps = (torch.rand(4, 7, 7) * 1e-20).requires_grad_()
    loss = cgc_loss(maps, maps.flip(0), drawn(4, 224, 0))
    loss.backward()
    assert loss.isfinite()
    assert maps.grad.isfinite().all()


def test_permuting_the_batch_permutes_the_losses():
    maps, views, crop = torch.rand(5, 4, 4), torch.rand(5, 4, 4), drawn(5, 32, 0)
    order = torch.tensor([3, 1, 4, 0, 2])
    losses = cgc_losses(maps, views, crop, size=32)
    torch.testing.assert_close(cgc_losses(maps[order], views[order], crop[order], size=32), losses[order])


def test_low_precision_maps_are_compared_in_float32():
    maps, views, crop = torch.rand(4, 7, 7), torch.rand(4, 7, 7), drawn(4, 224, 0)
    half = cgc_loss(maps.bfloat16(), views.bfloat16(), crop)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(cgc_loss(maps, views, crop).item(), rel=1e-2)


def test_no_large_map_is_ever_made(monkeypatch):
    """The largest tensor of the forward pass stays far below one S x S map per image."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    maps, views, crop = torch.rand(16, 7, 7), torch.rand(16, 7, 7), drawn(16, 224, 0)
    with Watch():
        cgc_loss(maps, views, crop)
    assert 0 < largest < 16 * 224 * 224 / 10


def test_refuses():
    maps, crop = torch.rand(3, 7, 7), drawn(3, 224, 0)
    with pytest.raises(ArgumentError, match="`temperature` must be positive, got 0"):
        cgc_loss(maps, maps, crop, temperature=0)
    with pytest.raises(ArgumentError, match=r"one shape \[N,h,w\]"):
        cgc_loss(maps, maps[:, :6], crop)
    with pytest.raises(ArgumentError, match="N >= 1"):
        cgc_loss(maps[:0], maps[:0], crop[0:0])
    with pytest.raises(ArgumentError, match="one transform per heatmap, 3; got 2"):
        cgc_loss(maps, maps, crop[0:2])
    with pytest.raises(ArgumentError, match=r"`extra_negatives` must be \[Q,7,7\]"):
        cgc_loss(maps, maps, crop, extra_negatives=torch.rand(2, 6, 7))
    with pytest.raises(ArgumentError, match="floating point"):
        cgc_loss(maps.long(), maps.long(), crop)
    with pytest.raises(UnknownNameError, match="`variant` must be one of paper, published-code"):
        cgc_loss(maps, maps, crop, variant="published")
    outside = Crop(crop.top + 224, crop.left, crop.height, crop.width, crop.flip, 224)
    with pytest.raises(ArgumentError, match="leaves the 224 x 224 image"):
        cgc_loss(maps, maps, outside)


@pytest.mark.parametrize("loss", [cgc_loss, l2_consistency_loss])
def test_autocast_changes_nothing(loss):
    """Nearly equal maps: in bfloat16 their distance would be rounding error."""
    maps = torch.rand(6, 7, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    views = (maps.detach() + 0.01 * torch.rand(6, 7, 7)).requires_grad_()
    crop = Crop.identity(6, 224)
    outside = loss(maps, views, crop)
    expected = torch.autograd.grad(outside, (maps, views))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(maps, views, crop)
    assert torch.equal(inside, outside)
    for found, wanted in zip(torch.autograd.grad(inside, (maps, views)), expected, strict=True):
        assert torch.equal(found, wanted)


def test_size_must_be_positive():
    with pytest.raises(ArgumentError, match=r"`size` must be at least 1 pixel on each side, got \(0, 0\)"):
        cgc_loss(torch.rand(2, 7, 7), torch.rand(2, 7, 7), Crop.identity(2, 8), size=0)
