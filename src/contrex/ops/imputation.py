"""Missing pixels from their neighbours: one linear system per image, solved on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.ops.multigrid import HarmonicFill

TOLERANCE = 1 / 255
"""Largest error, as a share of the range of the image's pixels: one level of 8-bit pixel values."""

MAX_STEPS = 100
"""Where to stop when the tolerance is beyond what the dtype can tell; float64 takes about 30 for 1e-12."""


def linear_imputation(images: Tensor, removed: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Images whose removed pixels are the weighted mean of their neighbours, removed or not.

    `x_i = sum_j w_ij x_j / sum_j w_ij` for every removed pixel i, channel by channel, j over the up to eight neighbours
    inside the image, `w = 1/6` for direct and `1/12` for diagonal ones.

    The linear part of the noisy linear imputation of ROAD (Rong et al., ICML 2022). Where no pixel is kept, any
    constant solves the equations, and the published code's system is singular; here it is the image's mean.

    *Accuracy.* Conjugate gradients with a multigrid cycle (`contrex.ops.multigrid`) end when a step moves no pixel
    by more than twice `tolerance` times the range of the image's pixels; what is left is about half of that step.
    With the default, after 3 to 6 steps, no pixel of eight photographs of 224x224 was off by more than 0.7 levels
    of 8 bits, and the root mean square was 0.15 at most, for blobs and for scattered pixels, an eighth to 99 % of
    the image. float64 with 1e-12 is exact to 1e-9.

    Args:
        images: `[N,C,H,W]`.
        removed: boolean `[N,H,W]`.
        tolerance: a share of the range of the image's pixels; float32 can reach about 1e-5.

    Returns:
        `[N,C,H,W]`, dtype and device of `images`; kept pixels are untouched. Half precision is solved in float32.

    Raises:
        ArgumentError: shapes do not match, an image is not finite, or `tolerance` is not positive.

    >>> image, removed = torch.tensor([[[[1.0, 9.0, 2.0]]]]), torch.tensor([[[False, True, False]]])
    >>> linear_imputation(image, removed)
    tensor([[[[1.0000, 1.5000, 2.0000]]]])
    """
    return LinearImputation(images, tolerance=tolerance)(removed)


class LinearImputation:
    """Imputes the same images for one set of removed pixels after another, in memory that is made once.

    >>> imputed = LinearImputation(torch.tensor([[[[1.0, 9.0, 2.0]]]]))
    >>> imputed(torch.tensor([[[False, True, False]]])), imputed(torch.tensor([[[True, False, False]]]))
    (tensor([[[[1.0000, 1.5000, 2.0000]]]]), tensor([[[[9., 9., 2.]]]]))
    """

    def __init__(self, images: Tensor, *, tolerance: float = TOLERANCE) -> None:
        _check(images, tolerance)
        self._images = images
        known = images.to(torch.promote_types(images.dtype, torch.float32)).flatten(0, 1)
        lowest, highest = images.amin(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))
        # A limit below what the dtype can tell would never be reached, and all `MAX_STEPS` be taken.
        rounding = 4 * torch.finfo(known.dtype).eps * torch.maximum(highest, -lowest).to(known)
        limit = torch.maximum(2 * tolerance * (highest - lowest).to(known), rounding)
        self._fill = HarmonicFill(known, limit.repeat_interleave(images.shape[1]), max_steps=MAX_STEPS)

    def __call__(self, removed: Tensor) -> Tensor:
        images = self._images
        expected = [images.shape[0], *images.shape[2:]]
        if list(removed.shape) != expected or removed.dtype != torch.bool:
            raise ArgumentError(f"`removed` must be boolean {expected}, got {removed.dtype} {list(removed.shape)}.")
        solved = self._fill(removed.repeat_interleave(images.shape[1], dim=0)).view(images.shape)
        return torch.where(removed[:, None], solved.to(images.dtype), images)


def _check(images: Tensor, tolerance: float) -> None:
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ArgumentError(
            f"`images` must be floating point [N,C,H,W] with N >= 1, got {images.dtype} {list(images.shape)}."
        )
    if not tolerance > 0:
        raise ArgumentError(f"`tolerance` must be positive, got {tolerance}: 1 / 255 is usual.")
    broken = ~images.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ArgumentError(f"`images` must be finite, got NaN or infinity at index {int(broken.nonzero()[0])}.")
