"""Pixels of batches on their way to the device: joined, moved, transformed there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.data.views.photometric import Look, recoloured
from contrex.ops import geometry
from contrex.ops.geometry import Crop


def as_float(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """uint8 images on `device` with pixel values in [0, 1], in the layout that is asked for."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # Moved as bytes, a quarter of the floats, and without waiting where the memory is pinned.
    return (images.to(device, non_blocking=True).float() / 255).contiguous(memory_format=layout)


def transformed(images: Tensor, crop: Crop, look: Look | None) -> Tensor:
    """Images in [0, 1] after `crop` and `look`, in the memory layout that they had."""
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    views = geometry.warp_images(images, crop)
    return (views if look is None else recoloured(views, look)).contiguous(memory_format=layout)


def concatenated(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One tensor of all that are there; None where there are none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
