"""Pictures of explanations for notebooks and files, with Pillow alone: a map over each image, and what it answers."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from contrex.errors import ArgumentError, printable
from contrex.explain import words
from contrex.explain.figure import full_colour, pictures
from contrex.ops import heatmap as heatmaps
from contrex.ops.colour import overlaid_rgb

if TYPE_CHECKING:
    from contrex.explain.explanation import Explanation

TILE = 256
"""Pixels of the longer side of a picture in a sheet of one or two images; of more it is less."""

SMALL_TILE = 160

SHOWN = 12
"""Images in a notebook's picture; the others are counted."""

WIDTH = 1080
"""Pixels that a sheet may be wide, where one image needs no more."""

MARGIN = 12
LINE = 17
INK, PALE = "#222222", "#6b6b6b"


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as the network saw it, uint8 `pixels` [H,W,3]. `name` and `sha256` are those of the file that it is
    from, or the hash of the pixels that were given, `is_file` says which."""

    pixels: NDArray[np.uint8]
    name: str = ""
    sha256: str | None = None
    is_file: bool = False

    def values(self) -> NDArray[np.float32]:
        """The pixels in [0, 1]."""
        return np.divide(self.pixels, 255, dtype=np.float32)


def photos_of(
    images: Tensor,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: Sequence[int] | None = None,
) -> tuple[Photo, ...]:
    """The pictures of normalised images `[N,C,H,W]`; arguments and errors as in `figure.pictures`."""
    return tuple(Photo(np.rint(values * 255).astype(np.uint8)) for values in pictures(images, mean, std, channels))


def overlays(why: Explanation) -> list[Image.Image]:
    """Each image with its map on it, in the size of the image; without images the map's colours, enlarged."""
    if not bool(why.heatmap.isfinite().all()):
        raise ArgumentError("`heatmap` must be finite to be drawn, it holds NaN or infinity.")
    maps = why.heatmap.detach().float().cpu()
    photos: Sequence[Photo | None] = why.images or [None] * len(maps)
    return [_overlay(values, photo) for values, photo in zip(maps, photos, strict=True)]


def _overlay(heatmap: Tensor, photo: Photo | None) -> Image.Image:
    size = _enlarged(heatmap.shape[0], heatmap.shape[1]) if photo is None else photo.pixels.shape[:2]
    values = heatmaps.resize(heatmap[None], (size[0], size[1]))[0].numpy()
    limit = full_colour(values)
    picture = np.ones((*size, 3), np.float32) if photo is None else photo.values()
    return Image.fromarray(overlaid_rgb(picture, values, limit))


def _enlarged(height: int, width: int, side: int = TILE) -> tuple[int, int]:
    """A size whose longer side has `side` pixels."""
    factor = side / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def sheet(columns: Sequence[Explanation], shown: int | None = SHOWN) -> Image.Image:
    """Draw a card for each image - the image, its most probable classes, a map for each column with its question - in
    lines, and a legend below. `shown` images are drawn at most, None draws all.

    Raises:
        ArgumentError: a map is not finite.
    """
    num = len(columns[0]) if shown is None else min(shown, len(columns[0]))
    some = [column[:num] for column in columns]
    side = TILE if num <= 2 else SMALL_TILE
    told = [words.in_words(column) for column in some]
    maps = [overlays(column) for column in some]
    cards = [_card(some, [said[i] for said in told], [drawn[i] for drawn in maps], i, side) for i in range(num)]
    legend = f"+ {len(columns[0]) - num} more" if len(columns[0]) > num else ""
    return _laid_out(cards, [words.method_in_words(columns[0]), legend])


def _card(
    columns: Sequence[Explanation],
    told: Sequence[words.Words],
    maps: Sequence[Image.Image],
    index: int,
    side: int,
) -> Image.Image:
    """One image: its tiles beside each other, each with what it shows above it."""
    photos = columns[0].images
    tiles = [(_tile(said.question, said.note), drawn) for said, drawn in zip(told, maps, strict=True)]
    if photos:
        photo = photos[index]
        tiles.insert(0, ([(line, INK) for line in (photo.name, told[0].answer) if line], Image.fromarray(photo.pixels)))
    else:
        tiles[0][0].insert(1, (told[0].answer, INK))
    for (head, _), column, said in zip(tiles[-len(columns) :], columns, told, strict=True):
        share = f"{said.share}, " if len(columns) > 1 else ""
        head.append((share + _strength(column.heatmap[index]), PALE))
    return _row(tiles, side)


def _tile(question: str, note: str) -> list[tuple[str, str]]:
    return [(question, INK), *([(note, PALE)] if note else [])]


def _strength(heatmap: Tensor) -> str:
    """What the full colour of a map is worth."""
    limit = full_colour(heatmap.detach().float().cpu().numpy())
    return f"full colour ±{limit:.2g}" if bool(heatmap.any()) else "empty map: zero everywhere"


def _row(tiles: Sequence[tuple[Sequence[tuple[str, str]], Image.Image]], side: int) -> Image.Image:
    """Tiles beside each other, the pictures on one line."""
    fitted = [_fitted(picture, side) for _, picture in tiles]
    widths = [max(picture.width, side * 3 // 4) for picture in fitted]
    heads = [
        [(line, ink) for text, ink in lines for line in _wrapped(text, width)]
        for (lines, _), width in zip(tiles, widths, strict=True)
    ]
    top = LINE * max(map(len, heads)) + 4
    height = top + max(picture.height for picture in fitted)
    card = Image.new("RGB", (sum(widths) + MARGIN * (len(tiles) - 1), height), "white")
    pen, left = ImageDraw.Draw(card), 0
    for lines, picture, width in zip(heads, fitted, widths, strict=True):
        for place, (line, ink) in enumerate(lines, max(map(len, heads)) - len(lines)):
            pen.text((left, place * LINE), line, fill=ink, font=_font())
        card.paste(picture, (left, top))
        left += width + MARGIN
    return card


def _laid_out(cards: Sequence[Image.Image], notes: Sequence[str]) -> Image.Image:
    """Cards in lines that are as long as fits, the colours' legend and the notes at the bottom."""
    lines: list[list[Image.Image]] = [[]]
    for card in cards:
        if lines[-1] and sum(one.width + 2 * MARGIN for one in [*lines[-1], card]) > WIDTH:
            lines.append([])
        lines[-1].append(card)
    legend = _legend([note for note in notes if note])
    width = max([sum(card.width + 2 * MARGIN for card in line) for line in lines] + [legend.width + 2 * MARGIN])
    height = sum(max(card.height for card in line) + 2 * MARGIN for line in lines) + legend.height + MARGIN
    whole, top = Image.new("RGB", (width, height), "white"), MARGIN
    for line in lines:
        left = MARGIN
        for card in line:
            whole.paste(card, (left, top + max(one.height for one in line) - card.height))
            left += card.width + 2 * MARGIN
        top += max(card.height for card in line) + 2 * MARGIN
    whole.paste(legend, (MARGIN, top - MARGIN // 2))
    return whole


def _legend(notes: Sequence[str]) -> Image.Image:
    """The colours of maps, from against to for, and a line of notes."""
    text = "   ".join(notes)
    bar = Image.fromarray(overlaid_rgb(np.ones((10, 120, 3)), np.linspace(-1, 1, 120)[None].repeat(10, 0), 1.0))
    before, behind = "against", "for"
    at = _length(before) + 8
    end = at + bar.width + 8
    legend = Image.new("RGB", (end + _length(behind) + 24 + _length(text), LINE + 4), "white")
    pen = ImageDraw.Draw(legend)
    pen.text((0, 1), before, fill=INK, font=_font())
    legend.paste(bar, (at, 5))
    pen.text((end, 1), behind, fill=INK, font=_font())
    pen.text((end + _length(behind) + 24, 1), printable(text), fill=PALE, font=_font())
    return legend


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """A picture with a longer side of `side`; small ones keep their pixels as squares."""
    height, width = _enlarged(picture.height, picture.width, side)
    how = Image.Resampling.NEAREST if max(picture.size) * 3 < side else Image.Resampling.LANCZOS
    return picture if picture.size == (width, height) else picture.resize((width, height), how)


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a text that are no longer than `width` pixels; a word that is, is cut."""
    lines = [""]
    for word in printable(text).replace("\n", " ").split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    if _length(line) <= width:
        return line
    while line and _length(line + "...") > width:
        line = line[:-1]
    return line + "..."


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _length(text: str) -> int:
    return int(np.ceil(_font().getlength(text)))


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
