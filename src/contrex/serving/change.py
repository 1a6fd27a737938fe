"""What a person has changed of a photo: parts that are erased, and how it is moved, enlarged, turned and mirrored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.explorer.content import View
from contrex.ops.pixels import reflected_blur

FILLS = ("blur", "mean")
"""What erased parts become: the photo under the blur of "Why Not Other Classes?", or its mean colour."""

SIGMA = 15 / 224
"""Of that blur, as a share of the shorter side: 15 pixels of 224, as in the paper."""

LIMITS = {"zoom": (0.5, 8.0), "x": (0.0, 1.0), "y": (0.0, 1.0), "angle": (-180.0, 180.0), "radius": (0.001, 0.5)}
"""The lowest and the highest value of each number."""

MOST_POINTS = 4000
"""Of all strokes together: drawing them must take no longer than a network."""

FINER = 2
"""How many times as fine a stroke is drawn as the pixels, so that its edge is smooth."""


@dataclass(frozen=True)
class Stroke:
    """A line of a round brush: `points` (x, y) in shares of the photo's width and height, and the `radius` as a share
    of its shorter side."""

    points: Sequence[tuple[float, float]]
    radius: float

    def draw(self, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
        """Draw the stroke on a mask of `size` = (W, H)."""
        radius, places = self.radius * min(size), [(x * size[0], y * size[1]) for x, y in self.points]
        if len(places) > 1:
            pen.line(places, 255, max(1, round(2 * radius)))
        for x, y in places:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), 255)


@dataclass(frozen=True)
class Change:
    """A photo with parts erased, then shown around the point (x, y), in shares of its sides, `zoom` times enlarged,
    mirrored where `flip` is set, and turned by `angle` degrees clockwise, in its own size.

    The order is this one, so a stroke stays on its object. What lies outside of the photo has its mean colour. Not
    turned, and inside the photo, it is the `View` of that part, to the last bit.
    """

    erased: Sequence[Stroke] = ()
    fill: str = "blur"
    zoom: float = 1.0
    x: float = 0.5
    y: float = 0.5
    angle: float = 0.0
    flip: bool = False

    @classmethod
    def read(cls, plain: object) -> Change:
        """The change that a page asks for.

        Raises:
            ArgumentError: a value is missing, of another kind, or outside of its limits.
        """
        told = _mapping(plain, "change")
        strokes = tuple(_stroke(one) for one in _list(told.get("erased", []), "erased"))
        if (num := sum(len(one.points) for one in strokes)) > MOST_POINTS:
            raise ArgumentError(f"`erased` has {num} points, and {MOST_POINTS} at most are drawn: undo some strokes.")
        if (fill := told.get("fill", "blur")) not in FILLS:
            raise unknown_name("`fill`", fill, FILLS)
        numbers = {name: _number(told, name) for name in ("zoom", "x", "y", "angle") if name in told}
        if not isinstance(flip := told.get("flip", False), bool):
            raise ArgumentError(f"`flip` must be true or false, got {flip!r:.80}.")
        return cls(strokes, fill, **numbers, flip=flip)

    def of(self, picture: Image.Image, how: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
        """The changed picture, in the picture's size."""
        mean = _mean_colour(picture)
        picture = self._erased(picture, mean)
        size = 1 / self.zoom
        part = View("", self.x - size / 2, self.y - size / 2, size, size, self.flip)
        if not self.angle and part.left >= 0 and part.top >= 0 and max(part.left, part.top) + size <= 1:
            return part.of(picture, how)
        # A canvas of three pictures by three has every part that is asked for: half a picture around is the most.
        width, height = picture.size
        canvas = Image.new("RGB", (3 * width, 3 * height), mean)
        canvas.paste(picture, (width, height))
        if self.angle:
            around = ((1 + self.x) * width, (1 + self.y) * height)
            turn = self.angle if self.flip else -self.angle  # Pillow turns the other way, and so does a mirror
            canvas = canvas.rotate(turn, how, center=around, fillcolor=mean)
        box = ((1 + part.left) * width, (1 + part.top) * height)
        seen = canvas.resize(picture.size, how, box=(*box, box[0] + size * width, box[1] + size * height))
        return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else seen

    def _erased(self, picture: Image.Image, mean: tuple[int, int, int]) -> Image.Image:
        if not self.erased:
            return picture
        mask = Image.new("L", (FINER * picture.width, FINER * picture.height))
        pen = ImageDraw.Draw(mask)
        for stroke in self.erased:
            stroke.draw(pen, mask.size)
        under = _blurred(picture) if self.fill == "blur" else Image.new("RGB", picture.size, mean)
        return Image.composite(under, picture, mask.reduce(FINER))


def _mean_colour(picture: Image.Image) -> tuple[int, int, int]:
    red, green, blue = np.asarray(picture).mean((0, 1)).round().astype(int).tolist()
    return red, green, blue


def _blurred(picture: Image.Image) -> Image.Image:
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    sigma = SIGMA * min(picture.size)
    blurred = reflected_blur(image, sigma, 2 * round(50 * sigma / 15) + 1)[0].round().clamp(0, 255)
    return Image.fromarray(blurred.byte().permute(1, 2, 0).numpy())


def _mapping(plain: object, name: str) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise ArgumentError(f"`{name}` must be an object with names and values, got {plain!r:.80}.")
    return plain


def _list(plain: object, name: str) -> Sequence[Any]:
    if not isinstance(plain, list):
        raise ArgumentError(f"`{name}` must be a list, got {plain!r:.80}.")
    return plain


def _number(told: Mapping[str, Any], name: str) -> float:
    """A number within its limits, written on one line of an error where it is none."""
    value, (low, high) = told.get(name), LIMITS[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ArgumentError(f"`{name}` must be a number from {low:g} to {high:g}, got {value!r:.80}.")
    return float(value)


def _stroke(plain: object) -> Stroke:
    told = _mapping(plain, "erased")
    points = tuple(_point(one) for one in _list(told.get("points"), "points"))
    return Stroke(points, _number(told, "radius"))


def _point(plain: object) -> tuple[float, float]:
    pair = _list(plain, "points")
    if len(pair) != 2:
        raise ArgumentError(f"`points` are pairs of x and y, got {plain!r:.80}.")
    return _number({"x": pair[0]}, "x"), _number({"y": pair[1]}, "y")
