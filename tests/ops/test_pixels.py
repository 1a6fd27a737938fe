from __future__ import annotations

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.ops.pixels import gaussian_blur, gaussian_kernel


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
