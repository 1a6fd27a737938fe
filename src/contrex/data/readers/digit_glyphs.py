"""The handwritten digits behind the built-in data set: which of them a split has, and how one is drawn.

Axes: N images, P side of the patch a glyph is drawn in, G side of a glyph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.settings import Digits

Split = Literal["train", "val", "test"]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

STREAMS = {"train": 0, "val": 1, "test": 2, "sources": 3}
"""Every split has its own random stream, and so has the division of the sources."""

SOURCE_SHARE = {"train": 0.70, "val": 0.10, "test": 0.20}
"""Share of each class's handwritten digits in each split."""

UPSAMPLING = 4
"""Cubic upsampling of the 8x8 sources before they are drawn."""
INK = 0.50
"""Grey level, of 1, at which a stroke has its edge (alpha = 0.5)."""
SOFTNESS = 0.35
"""Range of grey levels over which alpha goes from 0 to 1."""


def source_digits(settings: Digits, split: Split) -> Integers:
    """Indices of the handwritten digits of one split: disjoint between splits, in each class by `SOURCE_SHARE`."""
    # The same for all splits, which take their shares of one shuffle: so no handwriting is in two of them.
    rng = np.random.default_rng([settings.seed, STREAMS["sources"]])
    start = np.cumsum([0.0, *SOURCE_SHARE.values()])
    which = list(SOURCE_SHARE).index(split)
    chosen = []
    for label in range(10):
        mine = rng.permutation(np.flatnonzero(all_glyphs().labels == label))
        first, last = np.rint(start[which : which + 2] * len(mine)).astype(int)
        chosen.append(mine[first:last])
    return np.concatenate(chosen)


@dataclass(frozen=True)
class Glyphs:
    """The handwritten digits, upsampled: `ink` [1797,G,G] with a border of one source pixel; `left`, `right`, `top`
    and `bottom` are the edges of the visible strokes, in pixels of `ink`."""

    ink: Floats
    labels: Integers
    left: Floats
    top: Floats
    right: Floats
    bottom: Floats


def _handwritten() -> tuple[NDArray[np.float64], Integers]:
    """Scikit-learn's digits [1797,8,8], 0 to 16, and their labels, from its file: to import it takes a second."""
    package = find_spec("sklearn")
    file = Path(str(package and package.origin)).with_name("datasets") / "data" / "digits.csv.gz"
    if not file.is_file():  # another release may keep it elsewhere
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target.astype(np.int64)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


@cache
def all_glyphs() -> Glyphs:
    images, labels = _handwritten()
    small: Floats = np.pad(images / 16, [(0, 0), (1, 1), (1, 1)]).astype(np.float32)
    matrix = cubic(small.shape[1], UPSAMPLING * small.shape[1])
    ink = (matrix @ small @ matrix.T).astype(np.float32)
    return Glyphs(ink, labels, *mask_boxes(ink > INK).T)


def cubic(size: int, larger: int) -> Floats:
    """The matrix [larger,size] that interpolates a signal with cubic splines, pixel centres aligned as in images."""
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.asarray(identity.resize((size, larger), Image.Resampling.BICUBIC))


def mask_boxes(masks: Bools) -> Floats:
    """Tight boxes [N,4] (`xmin, ymin, xmax, ymax`, edges) of masks [N,H,W], each with at least one True pixel."""
    columns, rows = np.asarray(masks.any(axis=1)), np.asarray(masks.any(axis=2))
    xmin, ymin = columns.argmax(axis=1), rows.argmax(axis=1)
    xmax = masks.shape[2] - columns[:, ::-1].argmax(axis=1)
    ymax = masks.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([xmin, ymin, xmax, ymax], axis=1).astype(np.float32)


def middles(sources: Integers) -> Floats:
    """Centres [2,N] of the strokes, as x, y in pixels of the upsampled source."""
    g = all_glyphs()
    return (np.stack([g.left + g.right, g.top + g.bottom])[:, sources] / 2).astype(np.float32)


def resampled(
    sources: Integers, middle: Floats, centre: Floats, scale: Floats, slant: Floats, corners: Integers, side: int
) -> Floats:
    """Alpha [N,P,P] of patches whose top left pixels lie at `corners` [N,2] of the image.

    The upsampled source is drawn `scale` times as large, its point `middle` [2,N] at `centre` [2,N] of the image, and
    sheared by `slant` about that point: x = centre_x + scale * (u - middle_u) + slant * (y - centre_y).
    """
    pixels = pixel_centres(side)
    left, top = corners.T.astype(np.float32) - centre
    x = pixels[None, None, :] + left[:, None, None]
    y = pixels[None, :, None] + top[:, None, None]
    scale, slant = scale[:, None, None], slant[:, None, None]
    u = (x - slant * y) / scale + middle[0][:, None, None]
    v = y / scale + middle[1][:, None, None]
    alpha: Floats = ((_bilinear(sources, u, v) - INK) / SOFTNESS + 0.5).clip(0, 1)
    return alpha


def _bilinear(sources: Integers, u: Floats, v: Floats) -> Floats:
    """The upsampled sources at the points (u, v), in pixels; the empty border goes on for ever."""
    flat, last = all_glyphs().ink.ravel(), all_glyphs().ink.shape[-1] - 1
    u, v = (u - 0.5).clip(0, last - 1e-3), (v - 0.5).clip(0, last - 1e-3)
    column, row = np.floor(u), np.floor(v)
    u, v = u - column, v - row
    corner = (sources[:, None, None] * (last + 1) + row.astype(np.intp)) * (last + 1) + column.astype(np.intp)
    above = flat[corner] * (1 - u) + flat[corner + 1] * u
    below = flat[corner + last + 1] * (1 - u) + flat[corner + last + 2] * u
    ink: Floats = above * (1 - v) + below * v
    return ink


def pixel_centres(size: int) -> Floats:
    return np.arange(size, dtype=np.float32) + np.float32(0.5)
