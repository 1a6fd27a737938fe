"""A page of texts and pictures at places that are known before anything is drawn: so nothing collides, and the same
page becomes pixels (Pillow) or vectors (matplotlib, for PDF and SVG).

Lengths are in points of the page; `render` says how many pixels each has.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from contrex.errors import printable
from contrex.explain.fonts import font, font_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, WARNING = "#222222", "#636363", "#8a3b00"
"""Of what is said, of what is said beside it, and of a doubt: 4.5:1 on white and more, and never colour alone."""

TEXT = 12
LINE = 17
MARGIN = 12

VECTORS = {".pdf": "pdf", ".svg": "svg"}
PIXELS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FORMATS = (*PIXELS, *VECTORS)
"""Suffixes that `written` knows."""


@dataclass(frozen=True)
class Text:
    """A line of text; `left`, `top` is the corner of its line."""

    text: str
    left: float
    top: float
    ink: str = INK
    bold: bool = False


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture, stretched over a part of the page."""

    picture: Image.Image
    left: float
    top: float
    width: float
    height: float


@dataclass(eq=False)
class Page:
    """Texts and pictures, and the size that they need."""

    width: float = 0
    height: float = 0
    items: list[Text | Drawn] = field(default_factory=list)

    def write(self, text: str, left: float, top: float, ink: str = INK, *, bold: bool = False) -> float:
        """Put a line of text at a place; returns where it ends."""
        said = printable(text).replace("\n", " ")
        self.items.append(Text(said, left, top, ink, bold))
        return self._holds(left + length(said, bold=bold), top + LINE)

    def draw(self, picture: Image.Image, left: float, top: float, size: tuple[float, float]) -> float:
        """Put a picture at a place, (width, height) large; returns where it ends."""
        self.items.append(Drawn(picture, left, top, *size))
        return self._holds(left + size[0], top + size[1])

    def place(self, other: Page, left: float, top: float) -> float:
        """Put all of another page at a place; returns where it ends."""
        for item in other.items:
            moved = vars(item) | {"left": item.left + left, "top": item.top + top}
            self.items.append(type(item)(**moved))
        return self._holds(left + other.width, top + other.height)

    def _holds(self, right: float, bottom: float) -> float:
        self.width, self.height = max(self.width, right), max(self.height, bottom)
        return right

    def render(self, scale: float = 1) -> Image.Image:
        """The page as pixels, `scale` of them to a point."""
        image = Image.new("RGB", (math.ceil(self.width * scale), math.ceil(self.height * scale)), "white")
        pen = ImageDraw.Draw(image)
        for item in self.items:
            left, top = round(item.left * scale), round(item.top * scale)
            if isinstance(item, Text):
                pen.text(
                    (left, top), item.text, fill=item.ink, font=font(item.text, round(TEXT * scale), bold=item.bold)
                )
            else:
                image.paste(_sized(item, scale), (left, top))
        return image


def _sized(item: Drawn, scale: float) -> Image.Image:
    """A picture in the pixels that it has on the page; small ones keep theirs as squares."""
    size = max(1, round(item.width * scale)), max(1, round(item.height * scale))
    if item.picture.size == size:
        return item.picture
    is_small = max(item.picture.size) * 3 < max(size)
    return item.picture.resize(size, Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS)


def wrapped(text: str, width: float, most: int = 4) -> list[str]:
    """The lines of a text that are no longer than `width`, at most `most` of them: what is left is cut."""
    lines = [""]
    for word in printable(text).replace("\n", " ").split():
        for part in _broken(word, width):
            longer = f"{lines[-1]} {part}".strip()
            if lines[-1] and length(longer) > width:
                lines.append(part)
            else:
                lines[-1] = longer
    if len(lines) > most:
        last = f"{lines[most - 1]}..."
        while len(last) > 3 and length(last) > width:
            last = f"{last[:-4]}..."
        lines = [*lines[: most - 1], last]
    return lines


def _broken(word: str, width: float) -> list[str]:
    """A word in parts that are no longer than `width`."""
    parts = []
    while length(word) > width and len(word) > 1:
        num = next((num for num in range(len(word) - 1, 1, -1) if length(word[:num]) <= width), 1)
        parts.append(word[:num])
        word = word[num:]
    return [*parts, word]


@functools.lru_cache(maxsize=4096)
def length(text: str, *, bold: bool = False) -> float:
    """The width of a line of text."""
    return math.ceil(font(text, TEXT * 4, bold=bold).getlength(text) / 4)


def written(pages: Sequence[Page], suffix: str, scale: float) -> bytes:
    """The bytes of a file of pages in the format of a suffix (`FORMATS`); all but PDF have one page."""
    file = io.BytesIO()
    if suffix in PIXELS:
        # Level 3 takes a third of the time of 6, the default, and photos under colours become no smaller with that.
        quality = {"compress_level": 3} if suffix == ".png" else {"quality": 92}
        pages[0].render(scale).save(file, PIXELS[suffix], **quality)
    else:
        _write_vectors(pages, file, VECTORS[suffix])
    return file.getvalue()


def _write_vectors(pages: Sequence[Page], file: io.BytesIO, kind: str) -> None:
    """Draw pages with matplotlib, which writes texts as texts."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "path"}):
        warnings.simplefilter("ignore")  # letters that the font does not have are drawn as boxes
        figures = [_on_figure(Figure(figsize=(page.width / 72, page.height / 72)), page) for page in pages]
        if kind == "pdf":
            with PdfPages(file) as book:
                for figure in figures:
                    figure.savefig(book, format="pdf", dpi=144)
        else:
            figures[0].savefig(file, format=kind, dpi=144)


def _on_figure(figure: Figure, page: Page) -> Figure:
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    for item in page.items:
        if isinstance(item, Text):
            file = font_file(item.text, bold=item.bold)
            axis.text(
                item.left, item.top + 1, item.text, color=item.ink, va="top", parse_math=False,
                font=None if file is None else Path(file), fontsize=TEXT,
            )  # fmt: skip
        else:
            sides = (item.left, item.left + item.width, item.top + item.height, item.top)
            axis.imshow(np.asarray(item.picture), extent=sides, aspect="auto", interpolation="antialiased")
    axis.set_xlim(0, page.width)
    axis.set_ylim(page.height, 0)
    return figure
