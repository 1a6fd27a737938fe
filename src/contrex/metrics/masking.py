"""Masking images by heatmaps that are compared: which pixels are kept, and what the others are replaced by.

Axes: N images, C channels, H W pixels, h w heatmap cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from contrex.errors import ArgumentError, unknown_name

SIGNS = ("positive", "negative")
"""Evidence for the class, or against it."""

PROTOCOLS = ("same-area", "paper", "published-code")
"""How many pixels each map keeps; the first is the default."""

BASELINES = ("blur", "zero", "mean")
"""What replaced pixels become."""


def kept_pixels(
    heatmap: Tensor, other: Tensor | None = None, *, sign: str = "positive", protocol: str = "same-area"
) -> Tensor:
    """The pixels that `heatmap` keeps when it is compared with `other`; all the rest is replaced by a baseline.

    With `P`, `M` the numbers of positive and of negative pixels of `heatmap`, `P'`, `M'` those of `other`, and rank 0
    the lowest pixel of `heatmap`:

    | protocol | `sign="positive"` keeps | `sign="negative"` keeps |
    |---|---|---|
    | `same-area` | the `min(P, P')` highest | the `min(M, M')` lowest |
    | `paper` | every pixel `> 0`: P of them | every pixel `< 0`: M of them |
    | `published-code` | ranks `>= min(P, P')` | ranks `<= HW - max(M, M')` |

    "Why Not Other Classes?" (NeurIPS 2022), section 5.2 (`paper`) and appendix G (the other two). In `paper` a map with
    a larger area shows the network more of the image, whatever it ranks first. `same-area` takes that away: both maps
    keep equally many pixels, and as the *smaller* number is taken, all of them have the sign that is asked for in
    their own map; the larger would fill one map up with pixels that it counts as evidence for the opposite.

    `published-code` also keeps equally many pixels of both maps, but other ones than its name suggests: as many
    pixels are *replaced* as are positive (or negative), so a map that is positive almost everywhere keeps almost
    nothing. Its `rank > HW - n` replaces `n - 1` pixels, not n. *Deviations*: equal values are ordered by pixel index,
    row by row, where its `argsort` leaves that open. The function without equal areas in the same code replaces pixels
    `< 0` in positive mode, and so keeps zeros; here, as in the paper, a zero is no evidence and is replaced.

    Args:
        heatmap: `[N,H,W]`, signed, at the size of the images.
        other: the map that `heatmap` is compared with, of the same shape; `paper` does not look at it.
        sign: `"positive"` or `"negative"`.
        protocol: `"same-area"`, `"paper"` or `"published-code"`.

    Returns:
        Boolean `[N,H,W]`, True where the pixel is kept. For what `other` keeps, swap the two.

    Raises:
        UnknownNameError: `sign` or `protocol` is not one of those above.
        ArgumentError: `other` is needed and missing, the shapes differ, or a map holds NaN.

    >>> heatmap, other = torch.tensor([[[3.0, 2.0, 1.0, -1.0]]]), torch.tensor([[[1.0, -2.0, -3.0, -4.0]]])
    >>> kept_pixels(heatmap, other, sign="positive").int()
    tensor([[[1, 0, 0, 0]]], dtype=torch.int32)
    >>> kept_pixels(heatmap, sign="positive", protocol="paper").int()
    tensor([[[1, 1, 1, 0]]], dtype=torch.int32)
    >>> kept_pixels(heatmap, other, sign="positive", protocol="published-code").int()
    tensor([[[1, 1, 1, 0]]], dtype=torch.int32)
    """
    _check(heatmap, other, sign, protocol)
    if protocol == "paper" or other is None:
        return _of_sign(heatmap, sign)
    if protocol == "same-area":
        number = torch.minimum(_count(heatmap, sign), _count(other, sign))
        return _first(heatmap, number, descending=sign == "positive")
    if sign == "positive":
        number = torch.minimum(_count(heatmap, sign), _count(other, sign))
        return ~_first(heatmap, number, descending=False)
    number = torch.maximum(_count(heatmap, sign), _count(other, sign))
    return _first(heatmap, heatmap[0].numel() - number + 1, descending=False)


def upsample(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """`[...,h,w]` to `[...,H,W]` as the published code does it: bilinear, `align_corners=True`; float32 or better.

    The centres of the corner cells come to lie on the corner pixels: the map is stretched further than by
    `contrex.ops.heatmap.resize`, where they lie half a cell inside.

    >>> upsample(torch.tensor([[[0.0, 3.0]]]), (1, 4))
    tensor([[[0., 1., 2., 3.]]])
    """
    fine = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32))
    cells = fine.reshape(-1, 1, *fine.shape[-2:])
    return interpolate(cells, size=size, mode="bilinear", align_corners=True).view(*fine.shape[:-2], *size)


def reflected_blur(images: Tensor, sigma: float | Tensor = 15.0, kernel_size: int = 101) -> Tensor:
    """Images under a Gaussian kernel cut off at `kernel_size // 2` pixels, mirrored at their borders.

    `blur[r, c] = sum_ij k_i k_j image[r + i - m, c + j - m]`, `m = kernel_size // 2`,
    `k_i ~ exp(-(i - m)^2 / 2 sigma^2)` with sum 1; what lies outside is mirrored, the border pixel itself not repeated.

    It is torchvision's `GaussianBlur(kernel_size, sigma)`, which the published code of "Why Not Other Classes?" uses
    with a kernel of 101 pixels, and *not* `contrex.ops.pixels.gaussian_blur`, whose kernel has folded tails and which
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


def baseline_images(
    images: Tensor, names: Sequence[str] = BASELINES, *, sigma: float | Tensor = 15.0
) -> dict[str, Tensor]:
    """What replaced pixels become, by name, each of the images' shape or broadcast to it.

    - `blur`: the image under `reflected_blur` of `sigma`;
    - `zero`: zero, which after the usual normalisation is the mean colour of the data set;
    - `mean`: the mean of each channel of the image.

    All of it in the space that `images` are given in, the network's normalised one, as in the published code.

    Raises:
        UnknownNameError: a name is not one of these.
        ArgumentError: as `reflected_blur`.

    >>> baseline_images(torch.tensor([[[[1.0, 2.0]]]]), ["zero", "mean"])["mean"]
    tensor([[[[1.5000]]]])
    """
    make = {
        "blur": partial(reflected_blur, images, sigma),
        "zero": partial(images.new_zeros, (1, 1, 1, 1)),
        "mean": partial(images.mean, dim=(2, 3), keepdim=True),
    }
    for name in names:
        if name not in make:
            raise unknown_name("`names`", name, BASELINES)
    return {name: make[name]() for name in names}


def _of_sign(heatmap: Tensor, sign: str) -> Tensor:
    return heatmap > 0 if sign == "positive" else heatmap < 0


def _count(heatmap: Tensor, sign: str) -> Tensor:
    return _of_sign(heatmap, sign).flatten(1).sum(dim=1)


def _first(heatmap: Tensor, number: Tensor, *, descending: bool) -> Tensor:
    """Boolean `[N,H,W]`: the `number [N]` first pixels of each map in order, of equal ones the lower index."""
    order = heatmap.flatten(1).argsort(dim=1, descending=descending, stable=True)
    is_first = torch.arange(order.shape[1], device=order.device) < number[:, None]
    return torch.zeros_like(is_first).scatter(1, order, is_first).view(heatmap.shape)


def _blur_matrix(size: int, sigma: Tensor, kernel_size: int) -> Tensor:
    """`[N,size,size]`: the 1-D blur of a line of pixels with mirrored ends, float64."""
    offset = torch.arange(kernel_size, device=sigma.device) - kernel_size // 2
    weight = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)
    period = max(2 * (size - 1), 1)
    position = (torch.arange(size, device=sigma.device)[:, None] + offset) % period
    source = torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)
    matrix = sigma.new_zeros(len(sigma), size, size)
    return matrix.scatter_add(2, source.expand(len(sigma), -1, -1), weight[:, None].expand(-1, size, -1))


def _check(heatmap: Tensor, other: Tensor | None, sign: str, protocol: str) -> None:
    if sign not in SIGNS:
        raise unknown_name("`sign`", sign, SIGNS)
    if protocol not in PROTOCOLS:
        raise unknown_name("`protocol`", protocol, PROTOCOLS)
    if heatmap.ndim != 3 or not heatmap[:1].numel():
        raise ArgumentError(f"`heatmap` must be [N,H,W] with N >= 1, got {list(heatmap.shape)}.")
    if other is None and protocol != "paper":
        raise ArgumentError(
            f"`other` is needed by protocol {protocol!r}, which gives two maps the same area: "
            'pass the map to compare with, or protocol="paper".'
        )
    if other is not None and other.shape != heatmap.shape:
        raise ArgumentError(f"`other` must be {list(heatmap.shape)} as `heatmap`, got {list(other.shape)}.")
    for name, values in (("heatmap", heatmap), ("other", other)):
        if values is not None and values.isnan().any():
            index = int(values.isnan().flatten(1).any(dim=1).nonzero()[0])
            raise ArgumentError(f"`{name}` must not be NaN, got NaN at index {index}.")
