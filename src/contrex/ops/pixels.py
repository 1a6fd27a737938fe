"""Operations on the pixels of images: two Gaussian blurs, the mask of an explanation, cells of a grid.

Axes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.ops import heatmap

SPAN_EPS = 1e-8
"""Added to the span of a heatmap before it is divided by it, as in the published code of ExCon."""


def gaussian_blur(images: Tensor, kernel_size: int = 11, sigma: float = 5.0) -> Tensor:
    """Images blurred channel by channel, with zeros beyond their borders.

    `blur[r, c] = sum_ij k_i k_j image[r + i - m, c + j - m]`, `m = kernel_size // 2`, `k = gaussian_kernel(...)`.

    RISE (Petsiuk et al., BMVC 2018) starts its insertion game from such an image; the sizes are those of its
    published code. Zero padding darkens a border of `m` pixels: that, too, is the published behaviour.

    Args:
        images: floating point, `[N,C,H,W]` or any `[...,H,W]`.
        kernel_size: side of the square kernel in pixels, odd.
        sigma: standard deviation in pixels, before the folding that `gaussian_kernel` describes.

    Returns:
        A tensor with the shape, dtype and device of `images`; half precision is summed in float32. Differentiable.

    Raises:
        ArgumentError: `images` is not floating point, `kernel_size` is even or `sigma` is not positive.

    >>> gaussian_blur(torch.ones(1, 1, 4, 5), kernel_size=3, sigma=0.5)  # only the border darkens
    tensor([[[[0.7980, 0.8933, 0.8933, 0.8933, 0.7980],
              [0.8933, 1.0000, 1.0000, 1.0000, 0.8933],
              [0.8933, 1.0000, 1.0000, 1.0000, 0.8933],
              [0.7980, 0.8933, 0.8933, 0.8933, 0.7980]]]])
    """
    if not images.is_floating_point() or images.ndim < 2:
        raise ArgumentError(
            f"`images` must be floating point [..., H, W], got {images.dtype} {list(images.shape)}: "
            "convert with .float()."
        )
    kernel = gaussian_kernel(kernel_size, sigma).tolist()
    blurred = images.to(torch.promote_types(images.dtype, torch.float32))
    return _correlate(_correlate(blurred, kernel, -2), kernel, -1).to(images.dtype)


def gaussian_kernel(kernel_size: int, sigma: float) -> Tensor:
    """The 1-D kernel, float64 `[kernel_size]`, that sums to 1; the 2-D one is its outer product with itself.

    It is what `scipy.ndimage.gaussian_filter` makes of a one in the middle of `kernel_size` zeros, as in the published
    code of RISE: a Gaussian cut off at 4 sigma whose tails, where they leave the kernel, are *reflected* back into it.
    With a kernel of 11 and a sigma of 5 it is therefore nearly flat (0.088 at the edge, 0.094 in the middle), not a
    truncated Gaussian (0.066 and 0.109).

    Raises:
        ArgumentError: `kernel_size` is not a positive odd number or `sigma` is not positive.

    >>> [round(weight, 4) for weight in gaussian_kernel(3, 0.5).tolist()]
    [0.1067, 0.7866, 0.1067]
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ArgumentError(f"`kernel_size` must be a positive odd number of pixels, got {kernel_size}.")
    if not sigma > 0:
        raise ArgumentError(f"`sigma` must be a positive number of pixels, got {sigma}.")
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device="cpu")
    weight = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    # Reflection with the border repeated, d c b a | a b c d | d c b a, has the period 2 n and is symmetric within it.
    position = (kernel_size // 2 + offset) % (2 * kernel_size)
    folded = torch.minimum(position, 2 * kernel_size - 1 - position)
    return torch.zeros(kernel_size, dtype=torch.float64, device="cpu").index_add(0, folded, weight / weight.sum())


def reflected_blur(images: Tensor, sigma: float | Tensor = 15.0, kernel_size: int = 101) -> Tensor:
    """Images under a Gaussian kernel cut off at `kernel_size // 2` pixels, mirrored at their borders.

    `blur[r, c] = sum_ij k_i k_j image[r + i - m, c + j - m]`, `m = kernel_size // 2`,
    `k_i ~ exp(-(i - m)^2 / 2 sigma^2)` with sum 1; what lies outside is mirrored, the border pixel itself not repeated.

    It is torchvision's `GaussianBlur(kernel_size, sigma)`, which the published code of "Why Not Other Classes?"
    (NeurIPS 2022) uses with a kernel of 101 pixels, and *not* `gaussian_blur`, whose kernel has folded tails and which
    darkens the border. *Deviations*: `sigma` is fixed by default, the middle of the 10..20 that the published code
    draws from (a reproduction, arXiv 2501.11096, fixes it likewise); pass drawn ones to do as the code does. Images of
    `m` pixels or fewer, which torchvision refuses, are mirrored as often as is needed.

    Args:
        images: `[N,C,H,W]`, floating point.
        sigma: standard deviation in pixels, one number or `[N]`, one per image.
        kernel_size: pixels, odd.

    Returns:
        The shape, dtype and device of `images`; summed in float64.

    Raises:
        ArgumentError: a shape, `sigma` or `kernel_size` does not fit.

    >>> reflected_blur(torch.tensor([[[[9.0, 0.0, 0.0, 0.0]]]]), sigma=0.6, kernel_size=3)
    tensor([[[[6.0052, 1.4974, 0.0000, 0.0000]]]])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ArgumentError(f"`images` must be floating point [N,C,H,W], got {images.dtype} {list(images.shape)}.")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ArgumentError(f"`kernel_size` must be a positive odd number of pixels, got {kernel_size}.")
    widths = torch.as_tensor(sigma, dtype=torch.float64, device=images.device)
    if widths.shape not in ((), (len(images),)) or not (widths > 0).all():
        raise ArgumentError(f"`sigma` must be positive, one number or one for each of the {len(images)}, got {sigma}.")
    rows, columns = (_blur_matrix(size, widths.expand(len(images)), kernel_size) for size in images.shape[2:])
    return (rows[:, None] @ images.double() @ columns[:, None].mT).to(images.dtype)


def explanation_mask(heatmaps: Tensor, size: int | tuple[int, int], *, threshold: float = 0.5) -> Tensor:
    """The pixels that the explanation points at, boolean `[N,H,W]` (ExCon, ICLR 2022 submission, section 3.3).

    `(u - min u) / (max u - min u + 1e-8) > threshold`, u the signed map upsampled bilinearly (`align_corners=False`)
    to the image; extremes are those of each map at image size. Steps and eps are the published code's, the paper gives
    none. No ReLU comes before: evidence against the class lowers the floor, it is not cut off.

    A constant map has no True pixel, as it points nowhere; one that varies by less than about 1e-8 has none either.

    Args:
        heatmaps: raw signed maps `[N,h,w]`.
        size: H and W of the images, or the side of square ones.
        threshold: from 0 (all but the lowest pixels) to below 1.

    Raises:
        ArgumentError: `heatmaps` are not floating point `[N,h,w]` or not finite, `size` or `threshold` is out of range.

    >>> explanation_mask(torch.tensor([[[-2.0, 0.0, 3.0]], [[7.0, 7.0, 7.0]]]), (1, 3))
    tensor([[[False, False,  True]],
    <BLANKLINE>
            [[False, False, False]]])
    """
    if not 0 <= threshold < 1:
        raise ArgumentError(f"`threshold` must be from 0 to below 1, a share of the map's span, got {threshold}.")
    if heatmaps.ndim != 3 or not heatmaps.is_floating_point():
        raise ArgumentError(f"`heatmaps` must be floating point [N,h,w], got {heatmaps.dtype} {list(heatmaps.shape)}.")
    is_finite = heatmaps.isfinite().flatten(1).all(1)
    if not is_finite.all():
        raise ArgumentError(
            f"`heatmaps` must be finite, that of index {int(is_finite.int().argmin())} is not: leave it out."
        )
    upsampled = heatmap.resize(heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32)), size)
    low, high = _extremes(upsampled)
    mask: Tensor = (upsampled - low) / (high - low + SPAN_EPS) > threshold
    return mask


def grid_cells(size: tuple[int, int], grid: int) -> Tensor:
    """The number of the cell that each pixel is in, int64 `[H,W]`: `grid` x `grid` cells, row by row.

    Where the grid does not divide a side, cells differ by one pixel.

    >>> grid_cells((2, 5), 2)
    tensor([[0, 0, 0, 1, 1],
            [2, 2, 2, 3, 3]])
    """
    rows, columns = (torch.arange(side, device="cpu") * grid // side for side in size)
    return rows[:, None] * grid + columns


def without_random_cells(images: Tensor, *, share: float, grid: int, fill: Tensor) -> Tensor:
    """Images `[N,C,H,W]` of which a `share` has one cell of a `grid` x `grid` grid replaced by `fill`.

    Which ones, and which cell, is drawn from torch's generator of the CPU: the same on every device. It is how IDSDS
    (Hesse et al., NeurIPS 2024) fine-tunes networks, with a share of 0.5 and a grid of 4, so that images without one
    cell are in the domain that they know.

    Args:
        fill: what deleted pixels become, broadcast to the images: the mean colour is zero for the network.
    """
    is_changed = torch.rand(len(images), device="cpu") < share
    cell = torch.randint(grid**2, (len(images),), device="cpu").where(is_changed, -1).to(images.device)
    cells = grid_cells((images.shape[2], images.shape[3]), grid).to(images.device)
    return torch.where((cells == cell[:, None, None])[:, None], fill, images)


def masked_images(images: Tensor, mask: Tensor) -> Tensor:
    """Images `[N,C,H,W]` times a mask `[N,H,W]`: pixels where it is False become 0.

    0 is whatever the images' space makes of it: ExCon masks normalised images, where it is the data set's mean colour.

    Raises:
        ArgumentError: `mask` is not boolean or not one per image.

    >>> masked_images(torch.full((1, 1, 1, 2), 5.0), torch.tensor([[[True, False]]]))
    tensor([[[[5., 0.]]]])
    """
    if mask.dtype != torch.bool or images.ndim != 4 or mask.shape != (len(images), *images.shape[2:]):
        raise ArgumentError(
            f"`mask` must be boolean [N,H,W], one per image {list(images.shape)}, got {mask.dtype} {list(mask.shape)}."
        )
    return images * mask[:, None]


def _blur_matrix(size: int, sigma: Tensor, kernel_size: int) -> Tensor:
    """The matrix `[N,size,size]` that blurs a line of pixels with mirrored ends, float64."""
    offset = torch.arange(kernel_size, device=sigma.device) - kernel_size // 2
    # The softmax of the exponents is the Gaussian that sums to 1.
    weight = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)
    # Reflection without repeating the border, d c b | a b c d | c b a, has the period 2 (n - 1).
    period = max(2 * (size - 1), 1)
    position = (torch.arange(size, device=sigma.device)[:, None] + offset) % period
    source = torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)
    matrix = sigma.new_zeros(len(sigma), size, size)
    return matrix.scatter_add(2, source.expand(len(sigma), -1, -1), weight[:, None].expand(-1, size, -1))


def _extremes(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    return heatmaps.amin((1, 2), keepdim=True), heatmaps.amax((1, 2), keepdim=True)


def _correlate(images: Tensor, kernel: list[float], axis: int) -> Tensor:
    # Shifted sums rather than a convolution: cuDNN would round float32 to TF32.
    size, margin = images.shape[axis], len(kernel) // 2
    padded = torch.nn.functional.pad(images, (margin, margin) if axis == -1 else (0, 0, margin, margin))
    total = kernel[0] * padded.narrow(axis, 0, size)
    for shift, weight in enumerate(kernel[1:], start=1):
        total = total.add(padded.narrow(axis, shift, size), alpha=weight)
    return total
