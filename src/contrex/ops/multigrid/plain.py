"""Laplace's equation in the holes of images by conjugate gradients alone: slow, and what multigrid is tested with.

Axes: N images of one channel, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

_WEIGHTS = ((1.0, 2.0, 1.0), (2.0, 0.0, 2.0), (1.0, 2.0, 1.0))
"""w of the eight neighbours of a pixel."""


def harmonic_fill(images: Tensor, removed: Tensor, *, tolerance: float = 1e-10) -> Tensor:
    """Images `[N,H,W]` whose removed pixels are the weighted mean of their neighbours, from `A u = 0` in the hole.

    Conjugate gradients (Hestenes and Stiefel 1952) in float64, each image with its own steps, without a preconditioner:
    a hole of n pixels across takes about n of them. Where no pixel is kept, any constant solves it: it is the mean.

    Args:
        images: `[N,H,W]`, floating point.
        removed: boolean `[N,H,W]`.
        tolerance: the length of the residual `A u` that is left, as a share of the first one.

    >>> harmonic_fill(torch.tensor([[[1.0, 9.0, 2.0]]]), torch.tensor([[[False, True, False]]]))
    tensor([[[1.0000, 1.5000, 2.0000]]])
    """
    bare = removed.all(dim=(1, 2), keepdim=True)
    hole, values = (removed & ~bare).double(), images.double()
    degree = _weighted_sum(torch.ones_like(values))
    filled = torch.where(bare, values.mean(dim=(1, 2), keepdim=True), values.where(~removed, 0.0))

    def applied(u: Tensor) -> Tensor:
        return hole * (degree * u - _weighted_sum(u))

    residual = -applied(filled)
    direction, squares = residual, _dot(residual, residual)
    first = squares
    # Without rounding it would end after as many steps as there are unknowns.
    for _ in range(removed[0].numel()):
        if bool((squares <= tolerance**2 * first).all()):
            break
        change = applied(direction)
        length = _share(squares, _dot(direction, change))
        filled, residual = filled + length * direction, residual - length * change
        before, squares = squares, _dot(residual, residual)
        direction = residual + _share(squares, before) * direction
    return filled.to(images.dtype)


def _weighted_sum(values: Tensor) -> Tensor:
    """`sum_j w_ij u_j` over the neighbours inside the image."""
    return conv2d(values[:, None], values.new_tensor(_WEIGHTS)[None, None], padding=1)[:, 0]


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(dim=(1, 2), keepdim=True)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, 0 where an image needs no more steps."""
    return torch.where(whole > 0, part / whole.where(whole > 0, 1.0), 0.0)
