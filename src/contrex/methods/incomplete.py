"""Photos of which a part is blurred, for a network to answer as it did when it does not see everything.

Heatmaps are judged by what a network says of such photos (insertion, deletion, drop and increase), and a tuned network
that answers them otherwise is judged otherwise, whatever its heatmaps. The hidden part of a photo is where a field of
normal noise, drawn on a grid of 7 x 7 and enlarged to the photo's pixels, is below its q-quantile, for an even q in
(0, 1): all of it, nothing of it, or some connected parts. What it becomes is RISE's blur, from which insertion starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.data.streams import stream
from contrex.ops.pixels import gaussian_blur

GRID = 7
"""Rows and columns of the noise."""

FINE = 28
"""Those of the enlarged noise on which its quantile is taken."""


def drawn(places: Sequence[int], share: float, *, seed: int, draw: int) -> list[tuple[int, np.random.Generator]]:
    """Which of the images at `places` of their set are seen incomplete, by their position in the batch, each with the
    generator of its part: a pure function of (seed, draw, place), `share` of all in the mean."""
    generators = [stream("incomplete", seed, draw, place) for place in places]
    return [(number, one) for number, one in enumerate(generators) if one.random() < share]


def incomplete(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Normalised images `[N,C,H,W]` with a part of each blurred, which its generator draws."""
    noise = torch.from_numpy(np.stack([one.standard_normal((1, GRID, GRID)) for one in generators])).float()
    fine = F.interpolate(noise, size=(FINE, FINE), mode="bicubic", align_corners=False)
    shares = torch.tensor([one.random() for one in generators])
    limits = torch.stack([field.flatten().quantile(share) for field, share in zip(fine, shares, strict=True)])
    noise, limits = noise.to(images.device), limits.to(images.device)
    whole = F.interpolate(noise, size=images.shape[-2:], mode="bicubic", align_corners=False)
    return torch.where(whole < limits[:, None, None, None], gaussian_blur(images), images)
