"""Heatmaps [N,h,w]: the one place where they are rectified, normalised and resized.

Explainers return raw signed maps at layer size; everything done to them afterwards is a named step from here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError


def positive(heatmap: Tensor) -> Tensor:
    """The evidence *for* the target: `max(heatmap, 0)`."""
    return heatmap.relu()


def is_empty(heatmap: Tensor) -> Tensor:
    """Which maps `[N]` (boolean) are zero everywhere, so that nothing can be normalised or localised."""
    return (heatmap == 0).flatten(1).all(1)


_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(heatmap: Tensor, size: int | tuple[int, ...]) -> Tensor:
    """Bilinear resize to `size` = (H, W) or a square, `align_corners=False` (pixel areas, not corners, coincide).

    Maps of signals [N,l] are resized linearly to (L,), those of volumes [N,d,h,w] trilinearly to (D, H, W). A constant
    map stays constant, to the last bit.

    >>> import torch
    >>> resize(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    tensor([[[0., 1., 3., 4.]]])
    """
    rank = heatmap.ndim - 1
    sides = (size,) * rank if isinstance(size, int) else tuple(size)
    if len(sides) != rank:
        raise ArgumentError(f"`size` must be one number, or one for each of the {rank} sides of a map; got {sides}.")
    if min(sides) < 1:
        raise ArgumentError(f"`size` must be at least 1 pixel on each side, got {sides}.")
    resized = F.interpolate(heatmap[:, None], sides, mode=_MODES[rank], align_corners=False)[:, 0]
    # Weights of cells that sum to 1 but for rounding would make a ranking of the pixels of a constant map.
    low, high = (end.view(-1, *[1] * rank) for end in torch.aminmax(heatmap.flatten(1), dim=1))
    return resized.clamp(low, high)


def normalise_min_max(heatmap: Tensor) -> Tensor:
    """Each map stretched to [0, 1] for display; a constant map becomes 0, never NaN."""
    sides = [1] * (heatmap.ndim - 1)
    low = heatmap.flatten(1).amin(1).view(-1, *sides)
    span = heatmap.flatten(1).amax(1).view(-1, *sides) - low
    return (heatmap - low) / span.where(span > 0, 1.0)
