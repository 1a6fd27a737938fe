"""Read one image file as 8-bit RGB, upright, or refuse it with the reason.

Training and measuring on a picture that was read wrong shows nowhere: a photo on its side keeps its boxes, 16-bit grey
is clipped to white, a transparent logo turns into the colours behind it, a truncated file is half grey. So everything
here either gives the pixels a viewer would show, or raises `ImageError` with the path. Pillow's warnings are never
passed on: what matters is refused, what does not is read.

Setting `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` makes Pillow itself fill truncated files with grey; contrex leaves that
switch as it finds it.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from contrex.errors import ImageError, printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
"""Lower-case suffixes of the files that count as images."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What Pillow may take a file for, whatever its name: the others include EPS, for which it starts Ghostscript, and ICO,
which it decodes before its size is known."""

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: 50 megapixels are 150 MB as RGB."""

MAX_ASPECT = 100
"""Longer and thinner images are refused: resized to a shorter side of 448 pixels, they have 20 megapixels and more."""

FLIPPED_X = frozenset({2, 3, 7, 8})
FLIPPED_Y = frozenset({3, 4, 6, 7})
SWAPPED = frozenset({5, 6, 7, 8})
"""EXIF orientations that mirror x, mirror y and then exchange the axes on the way from stored to upright pixels."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_FILTERS = threading.Lock()


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file counts as an image by its suffix, in either case; hidden files never do.

    >>> is_image("cat.JPEG"), is_image("Thumbs.db"), is_image(".cat.jpg")
    (True, False, False)
    """
    name = os.path.basename(path)  # noqa: PTH119 - a `Path` of each of a million files takes seconds
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read the image at `path` as upright 8-bit RGB.

    - The EXIF orientation is applied.
    - Transparency (RGBA, LA, palette or key colour) is composited on white.
    - 16-bit grey is scaled by 255 / 65535 and rounded.
    - CMYK, palette, grey and bilevel are converted; an animation gives its first frame.

    Raises `ImageError` naming the path and the reason for a missing, empty or truncated file, for one that is no image
    (of `FORMATS`) or has no pixels, for more than `MAX_PIXELS` pixels or a side `MAX_ASPECT` times as long as the other
    (before decoding), and for pixels without a fixed range (floating point, or integers outside 16 bit).
    """
    return _decoded(path)


@dataclass(frozen=True)
class Header:
    """How an image is stored: its size in stored pixels, and the EXIF orientation 1..8 that turns it upright."""

    width: int
    height: int
    orientation: int = 1


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read how an image is stored, without decoding its pixels; raises `ImageError`."""
    return _header(path)


def decoded_header(content: bytes, name: str) -> Header:
    """How the image in a file's `content` is stored; `name` is what messages call it."""
    return _header(name, content)


def decoded_image(content: bytes, name: str) -> Image.Image:
    """The image in a file's `content`, as `read_image` gives it; `name` is what messages call it."""
    return _decoded(name, content)


def rgb_image(image: Image.Image) -> Image.Image:
    """An open image as `read_image` gives it: upright 8-bit RGB, on white where it is transparent.

    Raises `ImageError` for one without pixels, too large or too long, and for pixels without a fixed range.
    """
    try:
        _check_size(image)
        return upright(_rgb(image), _orientation(image))
    except Exception as error:
        raise ImageError(f"cannot use the image {image.mode} {image.size}: {_reason(error)}.") from error


def read_indices(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read the raw values [H,W] of a grey or palette image such as a trimap, in stored pixels; raises `ImageError`."""
    with _opened(path) as (image, _):
        if image.mode not in ("1", "L", "P"):
            raise ValueError(f"expected one 8-bit value per pixel, got mode {image.mode}")
        return np.array(image, dtype=np.uint8)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """An image of stored pixels, turned as the EXIF `orientation` 1..8 asks."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def upright_boxes(boxes: NDArray[np.float32], stored: Header) -> NDArray[np.float32]:
    """Boxes [M,4] (`xmin, ymin, xmax, ymax`, edges) of an image as it is stored, as they lie after `upright`.

    >>> upright_boxes(np.array([[0, 0, 2, 1]], dtype=np.float32), Header(width=10, height=5, orientation=6))
    array([[4., 0., 5., 2.]], dtype=float32)
    """
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    if stored.orientation in FLIPPED_X:
        # Mirrored edges exchange their roles: the old right one is the new left one.
        x = stored.width - x[:, ::-1]
    if stored.orientation in FLIPPED_Y:
        y = stored.height - y[:, ::-1]
    if stored.orientation in SWAPPED:
        x, y = y, x
    return np.stack([x, y], axis=-1).reshape(-1, 4).astype(np.float32)


def _decoded(path: str | os.PathLike[str], content: bytes | None = None) -> Image.Image:
    with _opened(path, content) as (image, _):
        image.load()
        left = _orientation(image)  # 1 where Pillow has turned the pixels while decoding, as it does for TIFF
        return upright(_rgb(image), left)


def _header(path: str | os.PathLike[str], content: bytes | None = None) -> Header:
    with _opened(path, content) as (image, orientation):
        turned = orientation in SWAPPED and orientation != _orientation(image)  # as Pillow has turned a TIFF by now
        width, height = image.size[::-1] if turned else image.size
        return Header(width, height, orientation)


# --- opening a file -------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str | os.PathLike[str], content: bytes | None = None) -> Iterator[tuple[Image.Image, int]]:
    """The open image, its header checked, and its orientation; whatever a damaged file makes Pillow raise becomes an
    `ImageError`. With `content`, that is the file, and `path` its name.

    Pillow gets the open file, not its name: given a name it maps uncompressed grey TIFFs into memory, and scrambles the
    pixels of those with an orientation (seen with 13.0).
    """
    try:
        with Path(path).open("rb") if content is None else io.BytesIO(content) as file:
            if file.seek(0, os.SEEK_END) == 0:
                raise ValueError("the file is empty")
            file.seek(0)
            yield _quietly_parsed(file)
    except Exception as error:
        raise ImageError(f"cannot read image '{printable(path)}': {_reason(error)}. Replace or remove it.") from error


def _quietly_parsed(file: BinaryIO) -> tuple[Image.Image, int]:
    """Read the header, check the size and parse the metadata with Pillow's warnings off.

    The warning filters belong to the whole process, so one thread at a time; decoding, which is slow, comes later and
    does not warn - except for TIFF, where it reads more metadata.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(file, formats=FORMATS)
        _check_size(image)
        orientation = _orientation(image)
        if image.format == "TIFF":
            image.load()
    return image, orientation


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.width * image.height == 0:
        raise ValueError("it has no pixels")
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(
            f"it is {image.width} x {image.height} pixels, one side more than {MAX_ASPECT} times as long as the other"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (as stored) where it is absent, out of range or unreadable, as viewers do."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in _TRANSPOSE else 1


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 1_000_000} megapixels"
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or its header is damaged"
    return str(error) or type(error).__name__


# --- colour ---------------------------------------------------------------------------------------------------------


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey8(image).convert("RGB")
    if image.mode.startswith("F"):
        raise ValueError("its pixels are floating-point numbers, which have no fixed range")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def _grey8(image: Image.Image) -> Image.Image:
    """Integer grey scaled from 16 to 8 bit, where Pillow's own conversion clips; the key colour becomes white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its values {values.min()}..{values.max()} do not fit 16 bit, so their range is unknown")
    # 65535 = 255 * 257, so this is division by 257, rounded.
    grey = (values + 128) // 257
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8))
