"""Pictures of explanations for notebooks and files: a map over each image, and what it answers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.explain import words
from contrex.explain.figure import LARGEST_RATIO, full_colour, pictures
from contrex.explain.page import INK, LINE, MARGIN, PALE, WARNING, Page, length, wrapped
from contrex.ops import heatmap as heatmaps
from contrex.ops.colour import overlaid_rgb

if TYPE_CHECKING:
    from contrex.explain.explainer import Explainer
    from contrex.explain.explanation import Explanation
    from contrex.models import Classifier

TILE = 256
"""The longer side of a picture in a sheet of one or two images; of more it is less."""

SMALL_TILE = 160

SHOWN = 12
"""Images in a notebook's picture; the others are counted."""

WIDTH = 1080
"""How wide a sheet may be, where one image needs no more."""

COLUMNS = 5
"""Maps beside each other; more are in lines below."""

METHOD = LINE + 3
"""The height of the line above a row that names its method."""

SHARP = 1.5
"""Pixels to a point in files, which are looked at closely."""


@dataclass(frozen=True, eq=False)
class Source:
    """The explainer that explained a picture, and the classifier that it explains."""

    explainer: Explainer
    classifier: Classifier


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as the network saw it, uint8 `pixels` [H,W,3]. `name` and `sha256` are those of the file that it is
    from, or the hash of the pixels that were given, `is_file` says which. `source` is who can be asked again."""

    pixels: NDArray[np.uint8]
    name: str = ""
    sha256: str | None = None
    is_file: bool = False
    source: Source | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "source": None}  # or a pickled explanation would have a whole network in it

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
    check_drawable(why)
    if not bool(why.heatmap.isfinite().all()):
        raise ArgumentError("`heatmap` must be finite to be drawn, it holds NaN or infinity.")
    maps = why.heatmap.detach().float().cpu()
    photos: Sequence[Photo | None] = why.images or [None] * len(maps)
    return [_overlay(values, photo) for values, photo in zip(maps, photos, strict=True)]


def check_drawable(why: Explanation) -> None:
    """Refuse what is no picture.

    Raises:
        ArgumentError: the maps are those of signals or volumes; the message says how these are drawn.
    """
    if why.heatmap.ndim == 2:
        raise ArgumentError("`heatmap` [N,L] is of signals, no pictures: draw it with them, why.show(signals).")
    if why.heatmap.ndim == 4:
        raise ArgumentError(
            "`heatmap` [N,D,H,W] is of volumes: draw a slice, why.slice(0.5).show(images[:, :, images.shape[2] // 2])."
        )


def _overlay(heatmap: Tensor, photo: Photo | None) -> Image.Image:
    size = _within(heatmap.shape[0], heatmap.shape[1]) if photo is None else photo.pixels.shape[:2]
    values = heatmaps.resize(heatmap[None], (size[0], size[1]))[0].numpy()
    picture = np.ones((*size, 3), np.float32) if photo is None else photo.values()
    return Image.fromarray(overlaid_rgb(picture, values, full_colour(heatmap.numpy())))


def _within(height: int, width: int, side: int = TILE) -> tuple[int, int]:
    """Height and width with a longer side of `side`; of very long pictures the shorter one is stretched."""
    factor = side / max(height, width)
    least = round(side / LARGEST_RATIO)
    return max(least, round(height * factor)), max(least, round(width * factor))


def sheet(columns: Sequence[Explanation], shown: int | None = SHOWN) -> Page:
    """Lay out a card for each image - the image, and a map for each column with its question - in lines, and a legend
    below. `shown` images are drawn at most, None draws all.

    Raises:
        ArgumentError: a map is not finite.
    """
    check_drawable(columns[0])
    num = len(columns[0]) if shown is None else min(shown, len(columns[0]))
    side = TILE if num <= 2 else SMALL_TILE
    cards = [_card([[column[i] for column in columns]], side) for i in range(num)]
    more = f"+ {len(columns[0]) - num} more" if len(columns[0]) > num else ""
    return _with_legend(_in_lines(cards), columns[0].unit, [words.method_in_words(columns[0]), more])


def photo_page(rows: Sequence[Sequence[Explanation]], remark: str = "") -> Page:
    """Lay out all that was asked about one image: the image once with its most probable classes, a row of maps for each
    method, a column for each question, and a legend with the remark. Each explanation is of that image.

    Raises:
        ArgumentError: a map is not finite.
    """
    card = _card(rows, TILE, methods=True)
    page = Page()
    page.place(card, MARGIN, MARGIN)
    page.height += MARGIN
    return _with_legend(page, _common_unit(rows) or "", [remark])


def _common_unit(rows: Sequence[Sequence[Explanation]]) -> str | None:
    """The unit of all methods; None where they differ."""
    units = {row[0].unit for row in rows}
    return units.pop() if len(units) == 1 else None


def _card(rows: Sequence[Sequence[Explanation]], side: int, *, methods: bool = False) -> Page:
    """One image with a row of maps for each method; `methods` names them, and lists the classes below the image."""
    photo = rows[0][0].images[0] if rows[0][0].images else None
    height, width = rows[0][0].heatmap.shape[1:] if photo is None else photo.pixels.shape[:2]
    size = _within(height, width, side)
    width = max(size[1], side * 3 // 4)
    left, top, card = 0 if photo is None else width + MARGIN, 0.0, Page()
    is_answer_left = photo is not None and not methods and len(rows[0]) == 1  # room is there, and lines are saved
    name = [] if photo is None else _name(rows[0][0] if is_answer_left else None, photo, width)
    columns = _columns(rows[0])
    for start in range(0, len(rows[0]), columns):
        heads = [_head(one, width, answer=not is_answer_left) for one in rows[0][start : start + columns]]
        deep = max(map(len, [*heads, name]))
        for place, head in enumerate(heads):
            _write_lines(card, head, left + place * (width + MARGIN), top + (deep - len(head)) * LINE)
        top += deep * LINE + 6
        if start == 0 and photo is not None:
            _write_lines(card, name, 0, top - 6 - len(name) * LINE)
            below = top + methods * METHOD
            card.draw(Image.fromarray(photo.pixels), 0, below, size[::-1])
            if methods:
                _write_classes(card, rows[0][0], below + size[0] + 6, width)
        for row in rows:
            band = row[start : start + columns]
            if methods:
                card.write(_method(row[0], rows), left, top, bold=True)
                top += METHOD
            for place, one in enumerate(band):
                at = left + place * (width + MARGIN)
                card.draw(overlays(one)[0], at, top, size[::-1])
                card.write(_strength(one.heatmap[0]), at, top + size[0] + 2, PALE)
            top += size[0] + LINE + MARGIN
        top += MARGIN
    return card


def _columns(row: Sequence[Explanation]) -> int:
    """How many maps are beside each other: as many as fit, the contrasts of a class in one line."""
    alike = sum(int(why.target) == int(row[0].target) for why in row)
    return COLUMNS // alike * alike or COLUMNS


def _name(why: Explanation | None, photo: Photo, width: int) -> list[tuple[str, str]]:
    """The name of an image, with the classes of an explanation."""
    answer = "" if why is None else words.in_words(why)[0].answer
    return _lines([(photo.name, INK), (answer, PALE)], width)


def _head(why: Explanation, width: int, *, answer: bool) -> list[tuple[str, str]]:
    """The question of a map, the classes in it with their probabilities, and what makes it doubtful."""
    said = words.in_words(why)[0]
    return _lines([(said.question, INK), (said.answer if answer else "", PALE), (said.note, WARNING)], width)


def _lines(told: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Texts with their inks as lines that fit."""
    return [(line, ink) for text, ink in told if text for line in wrapped(text, width)]


def _method(why: Explanation, rows: Sequence[Sequence[Explanation]]) -> str:
    """A method, its layer, and its unit where others have another one."""
    method = words.method_in_words(why)
    return f"{method}: {why.unit}" if why.unit and _common_unit(rows) is None else method


def _write_lines(page: Page, lines: Sequence[tuple[str, str]], left: float, top: float) -> None:
    for place, (line, ink) in enumerate(lines):
        page.write(line, left, top + place * LINE, ink)


def _write_classes(page: Page, why: Explanation, top: float, width: int) -> None:
    """List the most probable classes below the image, each with a bar as long as it is probable."""
    for name, probability in words.most_probable(why):
        share = words.percent(probability)
        page.write(share, width - length(share), top, INK)
        page.write(wrapped(name, width - length(share) - 8, most=1)[0], 0, top, INK)
        bar = max(1, round(width * probability))
        page.draw(Image.new("RGB", (1, 1), "#d9d9d9"), 0, top + LINE - 2, (width, 2))
        page.draw(Image.new("RGB", (1, 1), "#636363"), 0, top + LINE - 2, (bar, 2))
        top += LINE + 5


def _strength(heatmap: Tensor) -> str:
    """What the full colour of a map is worth."""
    limit = full_colour(heatmap.detach().float().cpu().numpy())
    return f"full colour ±{limit:.2g}" if bool(heatmap.any()) else "empty map: zero everywhere"


def _in_lines(cards: Sequence[Page]) -> Page:
    """Cards in lines that are as long as fits, the pictures in a line at one height."""
    lines: list[list[Page]] = [[]]
    for card in cards:
        if lines[-1] and sum(one.width + 2 * MARGIN for one in [*lines[-1], card]) > WIDTH:
            lines.append([])
        lines[-1].append(card)
    page, top = Page(), MARGIN
    for line in lines:
        left, height = MARGIN, max(card.height for card in line)
        for card in line:
            page.place(card, left, top + height - card.height)
            left += round(card.width) + 2 * MARGIN
        top += round(height) + MARGIN
    page.height = top
    return page


def _with_legend(page: Page, unit: str, notes: Sequence[str]) -> Page:
    """The page with the legend of the colours at the bottom, what a cell is worth, and notes."""
    top = page.height
    colours = np.linspace(-1, 1, 120)[None]
    end = page.write("against", MARGIN, top) + 8
    end = page.draw(Image.fromarray(overlaid_rgb(np.ones((1, 120, 3)), colours, 1.0)), end, top + 4, (120, 10)) + 8
    end = page.write("for", end, top) + 24
    told = " · ".join([note for note in (unit, *notes) if note])
    if told:
        page.write(told, end, top, PALE)
    page.width, page.height = page.width + MARGIN, page.height + MARGIN
    return page


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
