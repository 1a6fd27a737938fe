"""Photographs and heatmaps as small pictures inside the page.

A heatmap is not painted into its photograph: the page lays one over the other. So every photograph is stored once, and
each way of colouring a heatmap costs well under a kilobyte.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.report.colour import map_rgb

PHOTO_SIDE = 320
HEAT_SIDE = 96
PIXELATED_BELOW = 128
"""Pictures with a longer side below this are kept exactly and shown with square pixels."""

Heatmap = NDArray[np.floating]


def photo_uri(image: NDArray[np.uint8]) -> str:
    """The photograph as a data URI: exact when small, otherwise at most 320 pixels wide or high."""
    picture = Image.fromarray(image)
    if is_small(image):
        return _webp_uri(picture, lossless=True)
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    return _webp_uri(picture, lossless=False)


def is_small(image: NDArray[np.uint8]) -> bool:
    """Whether a picture is kept exactly and shown with square pixels."""
    return bool(max(image.shape[:2]) < PIXELATED_BELOW)


def positive_uri(heatmap: Heatmap, maximum: float, shape: tuple[int, int]) -> str:
    """The positive part of a heatmap, coloured from 0 to `maximum`, for multiplying with an image of `shape` (H, W)."""
    values = upsampled(np.maximum(heatmap, 0), *_heat_shape(shape))
    return _webp_uri(Image.fromarray(map_rgb(values, maximum)), lossless=False)


def signed_uri(heatmap: Heatmap, limit: float, shape: tuple[int, int]) -> str:
    """A signed heatmap, coloured from -`limit` over 0 to `limit`, for multiplying with an image of `shape` (H, W)."""
    values = upsampled(heatmap, *_heat_shape(shape))
    return _webp_uri(Image.fromarray(map_rgb(values, limit)), lossless=False)


def upsampled(heatmap: Heatmap, height: int, width: int) -> NDArray[np.float32]:
    """The heatmap resized bilinearly, pixel centres at halves (`align_corners=False`); shrinking takes averages."""
    picture = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def disagreement(first: Heatmap, second: Heatmap, shape: tuple[int, int]) -> float:
    """One minus the cosine similarity of the positive parts at image size: 1 when one of them is empty, NaN when both
    are."""
    a, b = (upsampled(np.maximum(heatmap, 0), *shape).ravel().astype(np.float64) for heatmap in (first, second))
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if not all(norms):
        return 1.0 if any(norms) else float("nan")
    return 1 - float(a @ b) / float(norms[0] * norms[1])


def _heat_shape(shape: tuple[int, int]) -> tuple[int, int]:
    height, width = shape
    scale = min(1.0, HEAT_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _webp_uri(picture: Image.Image, *, lossless: bool) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=lossless, quality=100 if lossless else 82, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
