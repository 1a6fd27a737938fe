"""The image files of a split: finding them, leaving out bad ones, and reading one with its boxes."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from contrex._version import __version__
from contrex.data.files.images import SUFFIXES, Header, is_image, read_header, read_image, upright_boxes
from contrex.data.files.index_cache import Verdicts, read_index
from contrex.data.sample import NO_BOXES, Annotation, ImageSet
from contrex.errors import DataError, ImageError

T = TypeVar("T")


class ImageFiles(ImageSet):
    """Labelled files below `root` as a sequence of samples: what the readers of image files share.

    `found` are paths relative to `root` with labels, in order; `boxes` are edges in stored pixels, float32 [M,4] by
    path. `paths` and `labels` (int64 [N]) are those of the images kept.

    With `on_bad_image="skip"` every file is decoded once here - about as long as reading the split once, and only where
    it has changed since the last start - and unreadable ones are left out before `limit_per_class` counts; `skipped`
    lists them with the reason. With "error", nothing is decoded here and reading such a sample raises `ImageError`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        found: Iterable[tuple[str, int]],
        *,
        boxes: Mapping[str, NDArray[np.float32]],
        limit_per_class: int | None,
        on_bad_image: str,
    ) -> None:
        self.root = root
        self.name = f"{root.name}/{split}"
        kept, self.skipped = self._readable(found, limit_per_class, split, skip=on_bad_image == "skip")
        if not kept:
            left_out = f"Left out: {shortened(self.skipped)}" if self.skipped else "Add images to its class folders."
            raise DataError(f"split '{split}' of '{root}' has no readable images. {left_out}")
        self.paths = [path for path, _ in kept]
        self.labels = np.array([label for _, label in kept], dtype=np.int64)
        self._boxes = boxes

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`."""
        with skippable():
            return read_image(self._file(self.paths[index]))

    def annotation(self, index: int) -> Annotation:
        """Read the boxes and the mask of sample `index`, and for them how its image is stored."""
        path = self.paths[index]
        boxes, read_mask = self._boxes.get(path, NO_BOXES), self._mask(path)
        if not len(boxes) and read_mask is None:
            return Annotation()
        with skippable():
            stored = read_header(self._file(path))
        return Annotation(upright_boxes(boxes, stored), None if read_mask is None else read_mask(stored))

    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image."""
        return int(self.labels[index])

    def path(self, index: int) -> str:
        """The path of sample `index` without reading its image."""
        return self.paths[index]

    def _readable(
        self, found: Iterable[tuple[str, int]], limit: int | None, split: str, *, skip: bool
    ) -> tuple[list[tuple[str, int]], list[str]]:
        """The images to use, and the faults of those left out, which are looked for once and kept."""
        if not skip:
            return kept_images(found, limit, fault=None)
        verdicts = Verdicts(
            self.root, f"images of {split} that contrex {__version__} reads with Pillow {PIL.__version__}"
        )

        @functools.lru_cache(maxsize=1)  # several samples of one image come one after the other
        def fault(path: str) -> str | None:
            file = self._file(path)
            return verdicts.fault(file, lambda: _fault(file))

        kept = kept_images(found, limit, fault=fault)
        verdicts.save()
        return kept

    def _file(self, path: str) -> Path:
        """The image file of the sample `path`, for readers with several samples of one image."""
        return self.root / path

    def _mask(self, path: str) -> Callable[[Header], NDArray[np.bool_]] | None:
        """What reads the upright mask of an image that is stored in some way; None where the image has no mask."""
        return None


@contextmanager
def skippable() -> Iterator[None]:
    """Add to the error of an unreadable image that such files can be left out."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{error} Or leave such files out: --data.on-bad-image skip.") from error


def holds(path: Path, *alternatives: str, below: str = "") -> bool:
    """Whether any of `alternatives` is in the folder `path`, or in the folder `below` in it."""
    names = [*alternatives, *(f"{below}/{name}" for name in alternatives if below)]
    return any((path / name).exists() for name in names)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, hidden ones left out, sorted.

    Raises `DataError` for a folder that may not be read.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read: {error.strerror}. Allow it, or leave it out.") from None


def image_names(folder: Path) -> list[str]:
    """The names of the image files in `folder`, sorted.

    Raises `DataError` for a folder that may not be read.
    """
    return _listed(folder)[0]


def image_names_below(root: Path, folders: Sequence[str], *, split: str) -> list[list[str]]:
    """The names of the image files in each of the `folders` below `root`, those of a split; a missing folder has none.

    What is found is kept for the next start (`index_cache`), so that a million files are listed once.
    """
    present = [folder for folder in folders if (root / folder).is_dir()]
    index = f"{' '.join(sorted(SUFFIXES))} of {split}"

    def scan(folder: str) -> tuple[bytes, bool]:
        names, lasting = _listed(root / folder)
        return os.fsencode("\0".join(names)), lasting

    found = dict(zip(present, read_index(root, index, present, scan), strict=True))
    return [os.fsdecode(found[folder]).split("\0") if found.get(folder) else [] for folder in folders]


def _listed(folder: Path) -> tuple[list[str], bool]:
    """The names of the image files in `folder`, sorted, and whether the folder alone tells when they change: what a
    link points to comes and goes without it."""
    names, links = [], False
    try:
        with os.scandir(folder) as entries:  # which know files from folders: a million files are listed without asking
            for entry in entries:
                if is_image(entry.name):
                    links = links or entry.is_symlink()
                    if _is_file(entry):
                        names.append(entry.name)
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read: {error.strerror}. Allow it, or leave it out.") from None
    return sorted(names), not links


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def shortened(names: Sequence[str], most: int = 5) -> str:
    """The first names of a long list.

    >>> shortened("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def kept_images(
    found: Iterable[tuple[T, int]], limit: int | None, *, fault: Callable[[T], str | None] | None
) -> tuple[list[tuple[T, int]], list[str]]:
    """The images to use with their labels, at most `limit` of each class, and the faults of those left out, each once;
    without `fault` none is looked for."""
    kept, faults, counts = [], [], Counter[int]()
    for image, label in found:
        if counts[label] == limit:
            continue
        found_fault = None if fault is None else fault(image)
        if found_fault is None:
            counts[label] += 1
            kept.append((image, label))
        else:
            faults.append(found_fault)
    return kept, list(dict.fromkeys(faults))


def _fault(file: Path) -> str | None:
    try:
        read_image(file)
    except ImageError as error:
        return str(error)
    return None
