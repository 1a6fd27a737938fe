"""The image without evidence: what methods compare an image with, or put in the place of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.explain.forward.capture import Pass

Baseline = float | Tensor | Callable[[Tensor], Tensor]
"""A value for all pixels, one per channel `[C]`, an image `[C,H,W]`, or a function from the images to theirs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaselinePass(Pass):
    """A pass with the baseline `[N,C,H,W]` of its images: one for all that is asked, as a function may draw it."""

    baseline: Tensor


def beside_baseline(run: Pass, baseline: Baseline) -> BaselinePass:
    """A plain pass with the baseline of its images, or errors as in `baseline_of`."""
    return BaselinePass(run.images, run.logits, run.features, baseline=baseline_of(run.images, baseline))


def baseline_of(images: Tensor, baseline: Baseline) -> Tensor:
    """The baseline `[N,C,H,W]` of each of the images, in their type and on their device.

    Raises:
        ArgumentError: it does not fit the images.
    """
    value = baseline(images) if callable(baseline) else baseline
    pixels = torch.as_tensor(value, dtype=images.dtype, device=images.device)
    if pixels.ndim == 1:
        pixels = pixels.view(-1, *[1] * (images.ndim - 2))
    try:
        return pixels.expand(images.shape)
    except RuntimeError:
        raise ArgumentError(
            f"`baseline` must be a number, [C], [C,H,W] or a function from images to images; got a tensor "
            f"{list(pixels.shape)} for images {list(images.shape)}."
        ) from None
