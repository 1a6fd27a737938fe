"""The scenes of the built-in data set: digits and fragments of digits, drawn over textured backgrounds.

Axes: N images, P side of the patch a glyph is drawn in, S side of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrex.data.readers.digit_glyphs import (
    STREAMS,
    UPSAMPLING,
    Bools,
    Floats,
    Integers,
    Split,
    all_glyphs,
    cubic,
    mask_boxes,
    middles,
    pixel_centres,
    resampled,
    source_digits,
)
from contrex.settings import Digits

SLANT = 0.15
"""Largest shear of a glyph, as horizontal shift per height."""
WIDEST = 1.6
"""Largest width / height of the patch that a digit is drawn in."""

FRAGMENT_SIZE = (0.40, 0.47)
"""Side of a fragment as a share of the smallest and of the largest digit: 10 to 15 px for digits of 24 to 32."""
FRAGMENT_CUT = 4.4
"""Side of the square cut from a source digit for a fragment, in its 8x8 pixels: about a quarter of its area."""
FRAGMENT_SHIFT = 0.25
"""Farthest that square's centre lies from the middle of the digit, as a share of the digit's width and height."""
FRAGMENT_OPACITY = 0.75
"""Largest alpha of a fragment."""
FRAGMENT_OVERLAP = 0.10
"""Largest share of a fragment that may lie under the digit's box."""
FRAGMENT_TRIES = 16
"""Places tried for each fragment; it is left out where none is free."""

BASE_COLOUR = (0.10, 0.50)
"""Range of the channels of a background's mean colour."""
NOISE_CELLS = 6
"""Grid points of the blurred noise along one side."""
GRADIENT, NOISE = 0.12, 0.10
"""Largest amplitudes of the background's gradient and blurred noise, in channel units of 0 to 1."""
TEXTURE, PLANTED_TEXTURE = (0.04, 0.10), (0.10, 0.16)
"""Range of the amplitude of stripes and checks, without and with a shortcut."""
SHARPNESS = (1.0, 6.0)
"""From sine waves to nearly hard edges."""
PERIOD = (0.08, 0.30)
"""Range of the period of stripes and checks, as a share of the image's side."""

PLANTED = tuple((angle, period) for period in (0.10, 0.22) for angle in (0, 36, 72, 108, 144))
"""Angle in degrees and period of the stripes planted for each class when there is a shortcut."""

DIGIT_CONTRAST, FRAGMENT_CONTRAST = 0.50, 0.15
"""Least difference in luminance between a glyph and the mean of what it covers."""
COLOUR_TRIES = 16
"""Random colours tried for each glyph; the best is taken where none has the contrast."""
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

CHUNK = 64
"""Images made at once: large enough for numpy, small enough for the cache."""


@dataclass(frozen=True)
class Scenes:
    """The arrays of one split; see `DigitImages`."""

    images: NDArray[np.uint8]
    masks: Bools
    labels: Integers
    sources: Integers
    textures: Integers


def digit_scenes(settings: Digits, split: Split) -> Scenes:
    """All images of one split, drawn in chunks from the split's own random stream."""
    # A stream for each split: the size of one does not change the images of another.
    rng = np.random.default_rng([settings.seed, STREAMS[split]])
    num, size = getattr(settings, f"num_{split}"), settings.image_size
    pool = source_digits(settings, split)
    # The order of the draws is part of the data set: another order would be other images under the same seed.
    sources = _dealt(pool, num, rng)
    labels = all_glyphs().labels[sources]
    textures = _textures(labels, settings.shortcut, planted=split != "test", rng=rng)
    images = np.empty((num, size, size, 3), dtype=np.uint8)
    masks = np.empty((num, size, size), dtype=np.bool_)
    for first in range(0, num, CHUNK):
        part = slice(first, first + CHUNK)
        images[part], masks[part] = _chunk(settings, sources[part], textures[part], pool, rng)
    return Scenes(images, masks, labels, sources, textures)


def _dealt(pool: Integers, num: int, rng: np.random.Generator) -> Integers:
    """`num` sources in random order, each used equally often (give or take one)."""
    rounds = [rng.permutation(pool) for _ in range(-(-num // len(pool)))]
    return np.concatenate([pool[:0], *rounds])[:num]


def _textures(labels: Integers, shortcut: float, *, planted: bool, rng: np.random.Generator) -> Integers:
    """The planted texture of each image: the class's own in a share `shortcut`, else any; -1 without a shortcut."""
    if shortcut == 0:
        return np.full(len(labels), -1)
    anything = rng.integers(len(PLANTED), size=len(labels))
    own = rng.permutation(len(labels)) < round(shortcut * len(labels))
    return np.where(own & planted, labels, anything)


def _chunk(
    settings: Digits, sources: Integers, textures: Integers, pool: Integers, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Bools]:
    """Images and masks: the background, the fragments over it, and the digit over everything."""
    canvas = _backgrounds(textures, settings.image_size, rng)
    corners, alpha = _digits(sources, settings, rng)
    masks = _masks(alpha, corners, settings.image_size)
    boxes = mask_boxes(masks)
    for _ in range(settings.num_clutter):
        _draw(canvas, *_fragments(pool, boxes, settings, rng), FRAGMENT_CONTRAST, rng)
    _draw(canvas, corners, alpha, DIGIT_CONTRAST, rng)
    return np.rint(255 * canvas.clip(0, 1)).astype(np.uint8), masks


# --- backgrounds ----------------------------------------------------------------------------------------------------


def _backgrounds(textures: Integers, size: int, rng: np.random.Generator) -> Floats:
    """Backgrounds [N,S,S,3]: a colour, a gradient, blurred noise, and stripes or checks, each in its own colour."""
    num = len(textures)
    line: Floats = pixel_centres(size) / np.float32(size)
    canvas = np.tile(_uniform(rng, *BASE_COLOUR, (num, 1, 1, 3)), (1, size, size, 1))
    for layer in (_gradient(num, line, rng), _noise(num, size, rng), _wave(textures, line, rng)):
        canvas += layer[..., None] * _tints(num, rng)
    return canvas


def _tints(num: int, rng: np.random.Generator) -> Floats:
    """Colour directions [N,1,1,3] whose largest channel is 1 or -1."""
    tints = _uniform(rng, -1, 1, (num, 1, 1, 3))
    largest: Floats = np.abs(tints).max(axis=-1, keepdims=True)
    return tints / largest


def _gradient(num: int, line: Floats, rng: np.random.Generator) -> Floats:
    slopes = _uniform(rng, -2 * GRADIENT, 2 * GRADIENT, (2, num, 1, 1))
    gradient: Floats = slopes[0] * (line[:, None] - 0.5) + slopes[1] * (line - 0.5)
    return gradient


def _noise(num: int, size: int, rng: np.random.Generator) -> Floats:
    matrix = cubic(NOISE_CELLS, size)
    cells = _uniform(rng, -NOISE, NOISE, (num, NOISE_CELLS, NOISE_CELLS))
    return (matrix @ cells @ matrix.T).astype(np.float32)


def _wave(textures: Integers, line: Floats, rng: np.random.Generator) -> Floats:
    """Stripes (planted, or a third of the images), checks (a third) or nothing (a third), as waves [N,S,S]."""
    num = len(textures)
    free = textures < 0
    planted = np.array(PLANTED, dtype=np.float32)[textures]
    angle = np.where(free, _uniform(rng, 0, np.pi, num), np.radians(planted[:, 0]))[:, None, None]
    period = np.where(free, _uniform(rng, *PERIOD, num), planted[:, 1])[:, None, None]
    kind = np.where(free, rng.choice(["plain", "stripes", "checks"], num), "stripes")[:, None, None]
    phase = _uniform(rng, 0, 2 * np.pi, (2, num, 1, 1))
    x, y = line, line[:, None]
    across = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase[0])
    along = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period + phase[1])
    wave = np.where(kind == "checks", across * along, across)
    strength = _uniform(rng, 0, 1, (num, 1, 1))
    amplitude = np.where(free[:, None, None], _within(TEXTURE, strength), _within(PLANTED_TEXTURE, strength))
    amplitude = np.where(kind == "plain", np.float32(0), amplitude)
    shaped: Floats = amplitude * np.tanh(_uniform(rng, *SHARPNESS, (num, 1, 1)) * wave)
    return shaped


# --- digits and fragments -------------------------------------------------------------------------------------------


def _digits(sources: Integers, settings: Digits, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """Where each digit's patch lies (its top left corner, [N,2] as x, y) and its alpha [N,P,P]."""
    size, num = settings.image_size, len(sources)
    side = min(size, int(np.ceil(WIDEST * settings.digit_size[1])))
    glyphs = all_glyphs()
    slant = _uniform(rng, -SLANT, SLANT, num)
    height = glyphs.bottom[sources] - glyphs.top[sources]
    width = glyphs.right[sources] - glyphs.left[sources] + np.abs(slant) * height
    wanted = rng.integers(*settings.digit_size, num, endpoint=True).astype(np.float32)
    scale: Floats = np.minimum(wanted / height, side / width)
    half = np.stack([scale * width, scale * height]).astype(np.float32) / np.float32(2)
    centre = half + _uniform(rng, 0, 1, (2, num)) * (size - 2 * half)
    corners = np.rint(centre - side / 2).clip(0, size - side).astype(np.int64).T
    alpha = resampled(sources, middles(sources), centre, scale, slant, corners, side)
    return corners, alpha


def _fragments(pool: Integers, boxes: Floats, settings: Digits, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """One fragment for each image, beside its digit's box: corners [N,2] and alpha [N,P,P]."""
    num = len(boxes)
    smallest, largest = (max(1, round(s * d)) for s, d in zip(FRAGMENT_SIZE, settings.digit_size, strict=True))
    sources = rng.choice(pool, num)
    sides = rng.integers(smallest, largest, num, endpoint=True)
    corners, free = _free_places(sides, boxes, settings.image_size - largest, rng)
    centre = (corners + sides[:, None] / 2).T.astype(np.float32)
    scale = (sides / (FRAGMENT_CUT * UPSAMPLING)).astype(np.float32)
    slant = _uniform(rng, -SLANT, SLANT, num)
    alpha = resampled(sources, _cut_middles(sources, rng), centre, scale, slant, corners, largest)
    inside = np.arange(largest) < sides[:, None]
    visible = inside[:, :, None] & inside[:, None, :] & free[:, None, None]
    return corners, np.float32(FRAGMENT_OPACITY) * alpha * visible


def _free_places(sides: Integers, boxes: Floats, last: int, rng: np.random.Generator) -> tuple[Integers, Bools]:
    """Top left corners [N,2] in 0..`last` that keep (nearly) clear of the boxes, and whether one was found."""
    tries = rng.integers(last, size=(FRAGMENT_TRIES, len(sides), 2), endpoint=True)
    low = np.maximum(tries, boxes[:, :2])
    high = np.minimum(tries + sides[:, None], boxes[:, 2:])
    free = (high - low).clip(0).prod(axis=2) <= FRAGMENT_OVERLAP * sides**2
    return tries[free.argmax(axis=0), np.arange(len(sides))], free.any(axis=0)


def _cut_middles(sources: Integers, rng: np.random.Generator) -> Floats:
    """Centres [2,N] of the squares cut out for fragments: somewhere around the middle of the strokes."""
    g = all_glyphs()
    extent = np.stack([g.right - g.left, g.bottom - g.top])[:, sources].astype(np.float32)
    return middles(sources) + extent * _uniform(rng, -FRAGMENT_SHIFT, FRAGMENT_SHIFT, (2, len(sources)))


# --- drawing --------------------------------------------------------------------------------------------------------


def _masks(alpha: Floats, corners: Integers, size: int) -> Bools:
    """The patches' alpha > 0.5 as masks [N,S,S] of the images."""
    masks = np.zeros((len(alpha), size, size), dtype=np.bool_)
    for patch, window in zip(alpha > 0.5, _windows(masks, corners, alpha.shape[1]), strict=True):
        window[:] = patch
    return masks


def _draw(canvas: Floats, corners: Integers, alpha: Floats, contrast: float, rng: np.random.Generator) -> None:
    """Paint the patches on the images [N,S,S,3], each in a random colour that stands out from what it covers."""
    windows = _windows(canvas, corners, alpha.shape[1])
    under = np.stack(windows)
    covered = np.einsum("nyx,nyxc->nc", alpha, under) / (alpha.sum(axis=(1, 2))[:, None] + 1e-6)
    painted = under + alpha[..., None] * (_contrasting(covered, contrast, rng)[:, None, None] - under)
    for window, patch in zip(windows, painted, strict=True):
        window[:] = patch


def _windows(canvas: NDArray[Any], corners: Integers, side: int) -> list[NDArray[Any]]:
    """Views of the images where their patches go."""
    places = zip(canvas, corners.tolist(), strict=True)
    return [image[y : y + side, x : x + side] for image, (x, y) in places]


def _contrasting(background: Floats, contrast: float, rng: np.random.Generator) -> Floats:
    """Random colours [N,3] lighter than the backgrounds by `contrast` in luminance, or the lightest of those tried."""
    colours = rng.random((COLOUR_TRIES, len(background), 3), dtype=np.float32)
    difference = (colours - background) @ LUMINANCE
    best = np.where(difference >= contrast, np.inf, difference).argmax(axis=0)
    chosen: Floats = colours[best, np.arange(len(background))]
    return chosen


def _uniform(rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...]) -> Floats:
    return _within((low, high), rng.random(size, dtype=np.float32))


def _within(bounds: tuple[float, float], share: Floats) -> Floats:
    """The numbers at these shares, 0 to 1, of the way from one bound to the other."""
    low, high = bounds
    return share * np.float32(high - low) + np.float32(low)
