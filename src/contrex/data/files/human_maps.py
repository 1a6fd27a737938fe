"""Maps of what people found important, in a folder beside images: one file for each image, of its name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data.files.images import read_image
from contrex.data.views.squares import central_square
from contrex.errors import DataError, ImageError

SUFFIXES = (".npy", ".png")
"""In the order in which they are looked for."""

ASPECT_TOLERANCE = 0.02
"""By how much the aspect ratio of a map may differ from its image's: maps are often stored in few pixels."""


class HumanMaps:
    """The maps in a folder, by the paths of images.

    The map of `val/tabby/104.jpg` is `104.npy` or `104.png` in FOLDER/val/tabby, FOLDER/tabby or FOLDER itself, looked
    for in this order: an array [H,W] of numbers, or a grey or RGB picture, whose channels are averaged.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"`evaluation.human.path` must be a folder with maps; there is no folder '{folder}'.")
        self.folder = folder

    def file(self, path: str) -> Path | None:
        """The file with the map of the image `path`; None where there is none."""
        parts = PurePosixPath(path).parts
        folders = dict.fromkeys(self.folder.joinpath(*parts[place:-1]) for place in range(len(parts)))
        stem = PurePosixPath(path).stem
        places = (below / f"{stem}{suffix}" for below in folders for suffix in SUFFIXES)
        return next((place for place in places if place.is_file()), None)

    def square(self, path: str, image_size: tuple[int, int], *, resize: int, size: int) -> NDArray[np.float32] | None:
        """The map of the image `path` of `image_size` (H, W) as its central square [size,size] has it, if any.

        A map with the aspect ratio of the image is cut as the image is; a square one is that of the square itself.

        Raises:
            DataError: the file cannot be read, is no map of finite numbers, or has neither shape.
        """
        file = self.file(path)
        if file is None:
            return None
        values = _read(file)
        picture = Image.fromarray(values)
        height, width = image_size
        if abs(np.log(picture.width * height / (picture.height * width))) <= ASPECT_TOLERANCE:
            # resized to the image's own frame first, so that rounding cuts both alike
            shorter = min(image_size)
            shape = (max(round(width * resize / shorter), 1), max(round(height * resize / shorter), 1))
            return np.asarray(
                central_square(picture.resize(shape, Image.Resampling.BILINEAR), resize=resize, size=size)
            )
        if picture.width == picture.height:
            return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
        raise DataError(
            f"the map '{file}' is {picture.width}x{picture.height} (width x height), its image '{path}' "
            f"{width}x{height}: give it the image's aspect ratio, or make it that of the central square."
        )


def _grey(file: Path) -> NDArray[np.float64]:
    """The mean of the channels of a picture, [H,W]."""
    mean: NDArray[np.float64] = np.asarray(read_image(file), np.float64).mean(axis=2)
    return mean


def _read(file: Path) -> NDArray[np.float32]:
    """The numbers of a map, [H,W]."""
    try:
        values = np.load(file, allow_pickle=False) if file.suffix == ".npy" else _grey(file)
    except (OSError, ValueError, EOFError, ImageError) as error:
        raise DataError(f"the map '{file}' cannot be read: {error}. Save it again, or take it away.") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub":
        told = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"the map '{file}' must be an array [H,W] of numbers, got {told}.")
    numbers: NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(f"the map '{file}' must have finite numbers, got NaN or infinity.")
    return numbers
