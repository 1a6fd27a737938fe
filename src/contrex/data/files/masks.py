"""Masks of objects stored beside images: trimaps, and pictures of segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data.files.images import Header, read_image, read_indices, upright
from contrex.data.sample import NO_BOXES
from contrex.errors import DataError, ImageError

OBJECT, BACKGROUND, BORDER = 1, 2, 3
"""Values of a trimap."""


def trimap_mask(file: Path, path: str, stored: Header, *, border: bool) -> NDArray[np.bool_]:
    """Read the upright mask of the object in a trimap of the image `path`; with `border` its border is object too.

    Raises `DataError` for another size than that of the stored image, or other values.
    """
    trimap = read_indices(file)
    if trimap.shape != (stored.height, stored.width):
        raise DataError(
            f"trimap '{file}' is {trimap.shape[1]}x{trimap.shape[0]} pixels, its image '{path}' is stored as "
            f"{stored.width}x{stored.height}. Give it the image's size."
        )
    if not np.isin(trimap, (OBJECT, BACKGROUND, BORDER)).all():
        raise DataError(
            f"trimap '{file}' has the values {np.unique(trimap).tolist()}; it must hold only {OBJECT} (object), "
            f"{BACKGROUND} (background) and {BORDER} (border)."
        )
    return upright_mask(np.isin(trimap, (OBJECT, BORDER) if border else OBJECT), stored)


def read_segmentation(file: Path, path: str, stored: Header) -> NDArray[np.uint8]:
    """Read the stored RGB pixels [H,W,3] of the segmentation of the image `path`.

    Raises `DataError` where it is missing, damaged or has another size.
    """
    try:
        image = read_image(file)
    except ImageError as error:
        raise DataError(f"the segmentation of '{path}': {error} Unpack its archive again.") from error
    if image.size != (stored.width, stored.height):
        raise DataError(
            f"segmentation '{file}' is {image.width}x{image.height} pixels, its image '{path}' is stored as "
            f"{stored.width}x{stored.height}. Unpack its archive again."
        )
    return np.array(image)


def upright_mask(mask: NDArray[np.bool_], stored: Header) -> NDArray[np.bool_]:
    """A mask of stored pixels, turned as its image is."""
    return np.array(upright(Image.fromarray(mask), stored.orientation), dtype=np.bool_)


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box [1,4] around all of a mask, as edges; none, [0,4], where it is empty.

    >>> mask_box(np.array([[False, False, False], [False, True, True]]))
    array([[1., 1., 3., 2.]], dtype=float32)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return NO_BOXES
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float32)
