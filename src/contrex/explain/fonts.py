"""The font of a text: matplotlib's own, which has Latin, Greek, Cyrillic, Hebrew and Arabic letters, or one of this
machine's for others, such as Chinese, Japanese and Korean."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageFont

from contrex.errors import GlyphWarning, warn

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

OF_MACHINES = (
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "NotoSansJP-Regular.otf", "NotoSansKR-Regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "ipag.ttf", "NanumGothic.ttf"),  # Linux
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),  # macOS
    *("msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "tahoma.ttf", "Nirmala.ttf", "LeelawUI.ttf"),  # Windows
    *("NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "unifont.otf"),
)
"""Files that Pillow finds by name in the folders where a system, or its user, has fonts."""

_told: set[str] = set()
"""Letters without a font that were warned about."""


@functools.lru_cache(maxsize=4096)
def font(text: str, size: int, *, bold: bool = False) -> Font:
    """The font of a text: the first that has all its letters, else the one that lacks the fewest, with a warning."""
    file = font_file(text, bold=bold)
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


@functools.lru_cache(maxsize=4096)
def font_file(text: str, *, bold: bool = False) -> str | None:
    """The file of a text's font; None is Pillow's own font, where matplotlib's is not there."""
    letters = frozenset(letter for letter in text if ord(letter) > 0x24F and _is_drawn(letter))  # more than Latin
    if not letters:
        return _own(bold)
    best, least = _own(bold), letters
    for file in (best, *_found()):
        lacking = letters - _has(file, letters)
        if len(lacking) < len(least):
            best, least = file, lacking
        if not lacking:
            break
    if least - _told:
        _told.update(least)
        warn(
            f"no font here has {''.join(sorted(least))}, so pictures show boxes in their place: install one that has, "
            "such as Noto Sans CJK for Chinese, Japanese and Korean (NotoSansCJK-Regular.ttc in ~/.local/share/fonts, "
            "or apt install fonts-noto-cjk), or name the classes in other letters.",
            GlyphWarning,
        )
    return best


def _own(bold: bool) -> str | None:
    """matplotlib's font, which has the letters of most names; matplotlib itself is not loaded."""
    found = importlib.util.find_spec("matplotlib")
    folder = Path((found and found.origin) or ".").parent / "mpl-data" / "fonts" / "ttf"
    file = folder / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    return str(file) if file.is_file() else None


def _found() -> Iterator[str]:
    """The files of this machine's fonts, looked for only as far as they are asked for."""
    for name in OF_MACHINES:
        try:
            yield str(ImageFont.truetype(name, 16).path)
        except OSError:
            continue


def _has(file: str | None, letters: frozenset[str]) -> frozenset[str]:
    """Those letters that a font has: what it lacks is drawn as what stands in no font."""
    plain = ImageFont.load_default(16) if file is None else ImageFont.truetype(file, 16)
    lacking = bytes(plain.getmask("\U0010ffff"))
    return frozenset(letter for letter in letters if bytes(plain.getmask(letter)) != lacking)


def _is_drawn(letter: str) -> bool:
    """Whether a letter has a shape of its own: not spaces, marks on others, and what steers the direction."""
    return unicodedata.category(letter)[0] not in "ZCM"
