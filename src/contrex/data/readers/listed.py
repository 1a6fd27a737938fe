"""Data sets whose archives name their images in lists: finding the archive, checking that all of it is there, keeping
validation images back, and numbered tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.folders import ImageFiles, shortened
from contrex.data.files.tables import parse_box, parse_integer, read_spaced
from contrex.data.streams import stream
from contrex.errors import DataError, unknown_name
from contrex.settings import FineGrained, TrainTest

SPLITS = ("train", "val", "test")

Labelled = list[tuple[str, int]]
"""Image paths below the archive's folder, with forward slashes, and their labels."""

Boxes = dict[str, NDArray[np.float32]]
"""Boxes float32 [1,4] by image path, edges in stored pixels."""


class ListedImages(ImageFiles):
    """The images of a list: with `on_bad_image="error"` all of them must be there before the first is read."""

    def __init__(
        self,
        settings: FineGrained,
        root: Path,
        split: str,
        found: Labelled,
        *,
        boxes: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.settings = settings
        if settings.on_bad_image == "error":
            fix = " Or leave them out: --data.on-bad-image skip."
            check_files(root, [path for path, _ in found], "images", fix)
        super().__init__(
            root,
            split,
            found,
            boxes=boxes,
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )


# --- the archive ----------------------------------------------------------------------------------------------------


def archive_folder(path: Path, name: str, needed: Sequence[str], what: str) -> Path:
    """The folder with what `needed` lists: `path`, or `name` below it.

    Raises `DataError` where there is none, or a part of it is missing.
    """
    if not path.is_dir():
        raise DataError(f"`path` must be the folder with {what}; there is no folder '{path}'")
    root = path / name if (path / name).is_dir() else path
    missing = [part for part in needed if not (root / part).exists()]
    if len(missing) == len(needed):
        raise DataError(f"'{root}' is not {what}: it has none of {', '.join(needed)}, as '{name}' of its archive has.")
    if missing:
        raise DataError(f"'{root}' has no '{missing[0]}', which the archive of {what} has: unpack it again.")
    return root


def check_split(split: str, what: str) -> None:
    """Refuse a split other than train, val and test with `UnknownNameError`."""
    if split not in SPLITS:
        raise unknown_name(f"`split` of {what}", split, SPLITS)


def check_files(root: Path, paths: Sequence[str], what: str, fix: str = "") -> None:
    """Refuse a list with files that are not there, with `DataError`; each folder is read once."""
    parents = {str(PurePosixPath(path).parent) for path in paths}
    present = {f"{parent}/{file.name}" for parent in parents for file in _files(root / parent)}
    missing = [path for path in paths if path not in present]
    if missing:
        raise DataError(
            f"'{root}' lacks {len(missing)} of the {len(paths)} {what} of this split: {shortened(missing, 3)}. Unpack "
            f"the archive again.{fix}"
        )


def _files(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


# --- training, validation and test ----------------------------------------------------------------------------------


def published_part(settings: TrainTest, split: str, what: str) -> str:
    """The published part that a split is: "test" for `val` where nothing is kept back for it."""
    check_split(split, what)
    return "test" if split == "val" and settings.val_share == 0 else split


def part_of_training(found: Labelled, settings: TrainTest, part: str) -> Labelled:
    """The images of the published part that are in `part`: the training images are divided among train and val."""
    if part == "test" or settings.val_share == 0:
        return found
    labels = np.array([label for _, label in found])
    in_val = np.zeros(len(found), dtype=np.bool_)
    for label in np.unique(labels).tolist():
        numbers = np.flatnonzero(labels == label)
        num_val = round(settings.val_share * len(numbers))
        if not 0 < num_val < len(numbers):
            raise DataError(
                f"`val_share` {settings.val_share} of the {len(numbers)} training images of class {label} is "
                f"{num_val}; each split needs one or more of every class."
            )
        in_val[stream("val", settings.val_seed, label).permutation(numbers)[:num_val]] = True
    return [item for item, val in zip(found, in_val, strict=True) if val == (part == "val")]


# --- numbered tables ------------------------------------------------------------------------------------------------


def read_numbered(file: Path, column: str) -> dict[int, tuple[int, str]]:
    """Read a table of lines `12 text with spaces`: the number of the line and its text, by the number at its start."""
    rows: dict[int, tuple[int, str]] = {}
    for line, (number, text) in read_spaced(file, ("number", column)):
        index = parse_integer(file, line, number)
        if index in rows:
            raise DataError(f"'{file}', line {line}: a second row for {index}")
        rows[index] = (line, text)
    return rows


def parse_label(file: Path, line: int, text: str, num_classes: int) -> int:
    """The label 0..n-1 of a published class number 1..n."""
    number = parse_integer(file, line, text)
    if not 1 <= number <= num_classes:
        raise DataError(f"'{file}', line {line}: class {number} is not in 1..{num_classes}")
    return number - 1


def pixel_box(file: Path, line: int, texts: Sequence[str]) -> NDArray[np.float32]:
    """The edges [1,4] of a box given as its first and last pixels, the image's first being 1; 0 is taken for it."""
    xmin, ymin, xmax, ymax = parse_box(file, line, texts, inclusive=True)
    return np.array([[max(xmin - 1, 0), max(ymin - 1, 0), xmax - 1, ymax - 1]], dtype=np.float32)
