from __future__ import annotations

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.ops.pixels import explanation_mask, gaussian_blur, gaussian_kernel, masked_images


@pytest.mark.parametrize(("kernel_size", "sigma"), [(11, 5.0), (11, 1.0), (5, 20.0), (1, 3.0), (101, 15.0)])
def test_kernel_is_scipys_filtered_delta(kernel_size, sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    delta = np.zeros((kernel_size, kernel_size))
    delta[kernel_size // 2, kernel_size // 2] = 1
    kernel = gaussian_kernel(kernel_size, sigma)
    np.testing.assert_allclose(torch.outer(kernel, kernel), ndimage.gaussian_filter(delta, sigma), rtol=0, atol=1e-15)


def test_golden_blur(golden):
    arrays = golden("insertion_a")
    blurred = gaussian_blur(torch.tensor(arrays["images"][:1]).float())
    np.testing.assert_allclose(blurred, arrays["blurred_first"], rtol=1e-5, atol=3e-6)


def test_equals_a_convolution_of_the_zero_padded_image():
    images = torch.randn(2, 3, 13, 8, dtype=torch.float64)
    kernel = torch.outer(gaussian_kernel(5, 2.0), gaussian_kernel(5, 2.0)).expand(3, 1, 5, 5)
    expected = torch.nn.functional.conv2d(images, kernel, padding=2, groups=3)
    torch.testing.assert_close(gaussian_blur(images, 5, 2.0), expected, rtol=0, atol=1e-14)


def test_an_image_smaller_than_the_kernel():
    images = torch.ones(1, 1, 2, 3)
    centre = gaussian_kernel(11, 5.0)[4:6].sum() * gaussian_kernel(11, 5.0)[4:7].sum()
    assert gaussian_blur(images)[0, 0, 0, 1].item() == pytest.approx(centre.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_dtype_shape_and_input(dtype):
    images = torch.rand(2, 3, 16, 12).to(dtype)
    before = images.clone()
    blurred = gaussian_blur(images)
    assert blurred.dtype == dtype
    assert blurred.shape == images.shape
    assert images.equal(before)
    torch.testing.assert_close(blurred.double(), gaussian_blur(images.double()), rtol=1e-2, atol=1e-2)


def test_differentiable():
    images = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, 3, 1.0), images)


def test_errors():
    with pytest.raises(ArgumentError, match=r"`images` must be floating point .* torch.uint8 \[1, 3, 4, 4\]"):
        gaussian_blur(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ArgumentError, match=r"`kernel_size` must be a positive odd number of pixels, got 10"):
        gaussian_blur(torch.zeros(1, 3, 4, 4), kernel_size=10)
    with pytest.raises(ArgumentError, match=r"`sigma` must be a positive number of pixels, got 0"):
        gaussian_blur(torch.zeros(1, 3, 4, 4), sigma=0)


def explicit_mask(heatmap, size, threshold):
    """One map, pixel by pixel: the weighted mean of the four nearest cells, borders repeated."""
    (h, w), (height, width) = heatmap.shape, size
    values = torch.zeros(size, dtype=torch.float64)
    for r in range(height):
        for c in range(width):
            y = min(max((r + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((c + 0.5) * w / width - 0.5, 0), w - 1)
            for i in range(h):
                for j in range(w):
                    values[r, c] += heatmap[i, j] * max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
    return (values - values.min()) / (values.max() - values.min() + 1e-8) > threshold


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_explanation_mask_is_the_explicit_one(threshold):
    """Signed maps of very different sizes: each is normalised by itself, after upsampling."""
    heatmaps = torch.randn(3, 3, 2, dtype=torch.float64) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    mask = explanation_mask(heatmaps - 3.0, (9, 8), threshold=threshold)
    expected = torch.stack([explicit_mask(one - 3.0, (9, 8), threshold) for one in heatmaps])
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected)
    assert 0 < mask.sum() < mask.numel()


def test_explanation_mask_of_a_map_that_points_nowhere():
    """Constant maps, also where float32 rounds what is between their cells, and one fainter than the eps."""
    flat = torch.tensor([0.0, 3.0, -1000.3, 0.7, 1e6 / 7])[:, None, None].expand(-1, 3, 3)
    faint = torch.tensor([[[0.0, 1e-9], [0.0, 0.0]]])
    assert not explanation_mask(flat, 11).any()
    assert not explanation_mask(faint, 4, threshold=0.1).any()
    assert explanation_mask(faint * 100, 4).any()


def test_explanation_mask_does_not_move_with_the_map():
    heatmaps = torch.randn(2, 4, 4, dtype=torch.float64)
    mask = explanation_mask(heatmaps, 16)
    assert torch.equal(explanation_mask(3 * heatmaps - 20, 16), mask)
    assert torch.equal(explanation_mask(heatmaps.flip(0), 16), mask.flip(0))
    assert not torch.equal(explanation_mask(heatmaps.relu(), 16), mask)


def test_explanation_mask_in_low_precision_is_computed_in_float32():
    heatmaps = torch.randn(2, 4, 4).bfloat16()
    assert torch.equal(explanation_mask(heatmaps, 32), explanation_mask(heatmaps.float(), 32))


def test_masked_images():
    images, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 4, 5) > 0.5
    masked = masked_images(images, mask)
    for image, m, found in zip(images, mask, masked, strict=True):
        for channel, kept in zip(image, found, strict=True):
            assert torch.equal(kept[m], channel[m])
            assert not kept[~m].any()


def test_mask_errors():
    maps = torch.zeros(3, 2, 2)
    with pytest.raises(ArgumentError, match=r"`threshold` must be from 0 to below 1, .* got 1"):
        explanation_mask(maps, 4, threshold=1.0)
    with pytest.raises(ArgumentError, match="got nan"):
        explanation_mask(maps, 4, threshold=float("nan"))
    with pytest.raises(ArgumentError, match=r"`heatmaps` must be floating point \[N,h,w\], got torch.float32 \[2, 2\]"):
        explanation_mask(maps[0], 4)
    with pytest.raises(ArgumentError, match=r"torch.int64 \[3, 2, 2\]"):
        explanation_mask(maps.long(), 4)
    with pytest.raises(ArgumentError, match="`size` must be at least 1 pixel"):
        explanation_mask(maps, 0)
    maps[2, 1, 0] = float("nan")
    with pytest.raises(ArgumentError, match="`heatmaps` must be finite, that of index 2 is not"):
        explanation_mask(maps, 4)
    with pytest.raises(ArgumentError, match=r"`mask` must be boolean \[N,H,W\].* got torch.float32 \[1, 4, 4\]"):
        masked_images(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ArgumentError, match=r"got torch.bool \[1, 4, 4\]"):
        masked_images(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4).bool())
