"""The colours of heatmaps, the same in figures and reports; they survive colour blindness and grey print.

A ramp is a short list of stops, joined by straight lines in sRGB. The same stops make the lookup table for heatmaps,
the colour map of figures and the SVG gradient of a report's colour bar, so bars and pictures agree exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEQUENTIAL = ("#0d0829", "#3b0f70", "#6f1f81", "#a3307e", "#d6456c", "#f66e5c", "#feA36f", "#fed395", "#fcfdbf")
"""For values from 0 up: dark to light, after matplotlib's magma; lightness rises evenly."""

DIVERGING = (
    "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
    "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f",
)  # fmt: skip
"""For signed values: blue below zero, near-white at zero, red above (ColorBrewer RdBu, told apart with any common
colour blindness). Both ends are equally dark, so in grey print signs are lost and strengths are not."""

SIGNED_WORDS = "red for, blue against"
"""What the colours of `DIVERGING` say of a heatmap."""


def sequential_rgb(values: NDArray[np.floating], maximum: float) -> NDArray[np.uint8]:
    """RGB of the positive part of `values`: 0 and below is the first stop, `maximum` and above the last. [H,W,3]."""
    share = np.clip(values / maximum, 0, 1) if maximum > 0 else np.zeros_like(values)
    return _lookup(SEQUENTIAL, share)


def diverging_rgb(values: NDArray[np.floating], limit: float) -> NDArray[np.uint8]:
    """RGB of signed `values`: -`limit` is the first stop, 0 the neutral middle, +`limit` the last. [H,W,3]."""
    share = (np.clip(values / limit, -1, 1) + 1) / 2 if limit > 0 else np.full_like(values, 0.5)
    return _lookup(DIVERGING, share)


OVER_PICTURE = 0.75
"""Where the ramp of maps over pictures ends: the last colours are too dark for a picture to be seen through them."""


def overlaid_rgb(picture: NDArray[np.floating], values: NDArray[np.floating], limit: float) -> NDArray[np.uint8]:
    """RGB [H,W,3] of a picture [H,W,3] in [0, 1], made grey and pale, with signed `values` [H,W] as colours on it.

    The colour is that of `diverging_rgb`, up to 75 % of its ramp, times the grey: at zero the picture is itself, and at
    `limit` its light and shade are still seen.
    """
    # The weights of ITU-R 601, as in Pillow's `convert("L")`.
    grey = picture @ np.array([0.299, 0.587, 0.114])
    strength = np.clip(values / limit, -1, 1) if limit > 0 else np.zeros_like(values)
    colour = diverging_rgb(strength * OVER_PICTURE, 1.0) / 255.0
    # Pale, as black pixels would swallow the colour; under a full colour the picture keeps 65 % of its contrast.
    light = 0.25 + 0.75 * grey
    share = np.abs(strength)[..., None]
    paper = light[..., None] * (1 - share) + share * (0.35 + 0.65 * light[..., None])
    rgb: NDArray[np.uint8] = np.rint(np.clip(paper * colour, 0, 1) * 255).astype(np.uint8)
    return rgb


def _lookup(ramp: tuple[str, ...], share: NDArray[np.floating]) -> NDArray[np.uint8]:
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in ramp], dtype=np.float64)
    positions = np.linspace(0, 1, len(ramp))
    channels = [np.interp(share, positions, stops[:, channel]) for channel in range(3)]
    rgb: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return rgb
