"""Tar archives in WebDataset's layout, read in any order.

    PATH/train-000000.tar           members of one sample share the name up to the first dot of their file name
        n01443537/0001.jpg          the image: any suffix that image folders may have, one per sample
        n01443537/0001.cls          its label, a whole number from 0 as text ...
        n01443537/0001.json         ... or {"label": 7, "boxes": [[xmin, ymin, xmax, ymax], ...]}; boxes are optional
    PATH/val-000000.tar
    PATH/classes.txt                index<TAB>folder<TAB>name, or one name per line; without it classes are numbered

Which archives are a split's, `pattern` tells. The headers of an archive are read once: where each image lies, its label
and its boxes go to the index cache (`index_cache`), and a sample is then one read at a known place. Boxes are edges in
stored pixels; they are turned with the EXIF orientation. Other members are ignored, nothing is unpacked to the disk,
and nothing is unpickled. Compressed archives have no known places: unpack them to plain .tar.

The libraries for such archives stream them, so that the order depends on the number of workers and on a shuffle
buffer, and an epoch cannot be continued in its middle. Here the order is a pure function of (seed, epoch) and resuming
is exact; the price is one seek per image, where streaming reads on.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contrex.data.files.folders import kept_images, shortened, skippable
from contrex.data.files.images import SUFFIXES, decoded_header, decoded_image, upright_boxes
from contrex.data.files.index_cache import read_index
from contrex.data.files.tables import numbered_classes, read_classes
from contrex.data.sample import Annotation, ImageSet
from contrex.errors import DataError, ImageError
from contrex.settings import Shards

LARGEST_TEXT = 1_000_000
"""Bytes; a larger .cls or .json is no label."""


@dataclass
class _Index:
    """What one archive holds, by column; `boxes` only of samples that have some, by their place."""

    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes: dict[str, list[list[float]]] = field(default_factory=dict)


class ShardImages(ImageSet):
    """One split of `Shards` as an `ImageSet`; see the module's docstring.

    A sample's path is ARCHIVE/MEMBER. With `on_bad_image="skip"` every image is decoded once here, as in image folders.

    Raises `DataError` for archives or labels that are missing or damaged, and where an archive has changed since its
    index was read; `ImageError` for an unreadable image.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether `path` has archives that are named as those of a split."""
        return any(path.glob("*-*.tar"))

    def __init__(self, settings: Shards, split: str) -> None:
        self.settings = settings
        self.name = f"{settings.path.name}/{split}"
        self._archives = _archives(settings, split)
        self._states = [_state(settings.path / archive) for archive in self._archives]
        indices = _indices(settings, split, self._archives)
        self._shards = np.repeat(np.arange(len(indices)), [len(index.names) for index in indices])
        self._offsets, self._sizes, labels = (
            np.array([value for index in indices for value in getattr(index, column)], dtype=np.int64)
            for column in ("offsets", "sizes", "labels")
        )
        self._members = [name for index in indices for name in index.names]
        starts = np.cumsum([0, *(len(index.names) for index in indices)])
        self._boxes = {
            int(start) + int(place): np.array(boxes, dtype=np.float32).reshape(-1, 4)
            for start, index in zip(starts, indices, strict=False)
            for place, boxes in index.boxes.items()
        }
        self.classes: Sequence[str] = _classes(settings.path, labels, self._path)
        self._check_labels(labels)
        kept, self.skipped = kept_images(
            enumerate(labels.tolist()),
            settings.limit_per_class,
            fault=self._fault if settings.on_bad_image == "skip" else None,
        )
        if not kept:
            left_out = f" Left out: {shortened(self.skipped)}" if self.skipped else ""
            raise DataError(f"split '{split}' of '{settings.path}' has no readable images.{left_out}")
        self._numbers = np.array([number for number, _ in kept], dtype=np.int64)
        self.labels = labels[self._numbers]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Read the RGB pixels of sample `index`."""
        with skippable():
            return decoded_image(self._content(int(self._numbers[index])), str(self.settings.path / self.path(index)))

    def annotation(self, index: int) -> Annotation:
        """The boxes of sample `index`; for them it is read how the image is stored."""
        number = int(self._numbers[index])
        if number not in self._boxes:
            return Annotation()
        with skippable():
            stored = decoded_header(self._content(number), str(self.settings.path / self.path(index)))
        return Annotation(upright_boxes(self._boxes[number], stored))

    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image."""
        return int(self.labels[index])

    def path(self, index: int) -> str:
        """The path of sample `index` without reading its image."""
        return self._path(int(self._numbers[index]))

    def _path(self, number: int) -> str:
        return f"{self._archives[self._shards[number]]}/{self._members[number]}"

    def _content(self, number: int) -> bytes:
        """The bytes of an image. The file is opened for each, so that any number of workers may do so."""
        shard = int(self._shards[number])
        file = self.settings.path / self._archives[shard]
        with file.open("rb") as archive:
            found = os.fstat(archive.fileno())
            if (found.st_size, found.st_mtime_ns) != self._states[shard]:
                raise DataError(f"archive '{file}' has changed since this run read its index: start again.")
            archive.seek(int(self._offsets[number]))
            return archive.read(int(self._sizes[number]))

    def _fault(self, number: int) -> str | None:
        try:
            decoded_image(self._content(number), str(self.settings.path / self._path(number)))
        except ImageError as error:
            return str(error)
        return None

    def _check_labels(self, labels: NDArray[np.int64]) -> None:
        wrong = np.flatnonzero((labels < 0) | (labels >= len(self.classes)))
        if len(wrong):
            raise DataError(
                f"'{self.settings.path / self._path(int(wrong[0]))}' has the label {labels[wrong[0]]}, which is not in "
                f"0..{len(self.classes) - 1}, the classes of classes.txt"
            )


def _archives(settings: Shards, split: str) -> list[str]:
    """The names of a split's archives below the folder, in order."""
    if not settings.path.is_dir():
        raise DataError(f"`path` must be the folder with the archives; there is no folder '{settings.path}'")
    pattern = settings.pattern.format(split=split)
    found = sorted(file.relative_to(settings.path).as_posix() for file in settings.path.glob(pattern) if file.is_file())
    if not found:
        raise DataError(
            f"'{settings.path}' has no archives '{pattern}' of the split '{split}'. Name them so, or set `pattern`."
        )
    return found


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _classes(root: Path, labels: NDArray[np.int64], path: Callable[[int], str]) -> list[str]:
    file = root / "classes.txt"
    if file.is_file():
        return [name for _, name in read_classes(file)]
    if not len(labels):
        return []
    largest = int(labels.argmax())
    return numbered_classes(int(labels[largest]) + 1, f"'{root / path(largest)}'")


# --- the index of an archive ----------------------------------------------------------------------------------------


def _indices(settings: Shards, split: str, archives: Sequence[str]) -> list[_Index]:
    def scan(archive: str) -> tuple[bytes, bool]:
        return json.dumps(vars(_index(settings.path / archive))).encode(), True

    name = f"shards of {split}: {' '.join(sorted(SUFFIXES))}"
    return [_Index(**json.loads(content)) for content in read_index(settings.path, name, archives, scan)]


def _index(file: Path) -> _Index:
    """Read the headers of an archive, and its labels.

    Raises `DataError` naming the archive and the member.
    """
    images: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for key, suffix, member in _members(archive):
                if f".{suffix}" in SUFFIXES:
                    if key in images:
                        raise DataError(
                            f"archive '{file}' has two images of '{key}': {images[key].name}, {member.name}"
                        )
                    images[key] = member
                elif suffix in ("cls", "json"):
                    texts.setdefault(key, {}).update(_text(file, archive, member, suffix))
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"archive '{file}' cannot be read: {error}. It must be a whole, uncompressed tar; make it anew."
        ) from None
    index = _Index()
    for key, member in images.items():
        if "label" not in texts.get(key, {}):
            raise DataError(
                f"archive '{file}' has no label of '{member.name}': add '{key}.cls' or a \"label\" in '.json'."
            )
        if boxes := texts[key].get("boxes"):
            index.boxes[str(len(index.names))] = boxes
        index.names.append(member.name)
        # Where the bytes of the image begin: later they are read there, without looking through the archive again.
        index.offsets.append(member.offset_data)
        index.sizes.append(member.size)
        index.labels.append(texts[key]["label"])
    return index


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, suffix and member of every plain file that is not hidden."""
    for member in archive:
        folder, slash, name = member.name.rpartition("/")
        key, dot, suffix = name.partition(".")
        if member.isreg() and member.sparse is None and key and dot:
            yield f"{folder}{slash}{key}", suffix.lower(), member


def _text(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> dict[str, Any]:
    """What a .cls or .json says: `label` and `boxes`, checked."""
    stream = archive.extractfile(member)
    content = b"" if stream is None or member.size > LARGEST_TEXT else stream.read()
    try:
        found: dict[str, Any] = {"label": int(content)} if suffix == "cls" else json.loads(content)
        said: dict[str, Any] = {name: found[name] for name in ("label", "boxes") if name in found}
        if not _is_label(said.get("label", 0)) or not all(_is_box(box) for box in said.get("boxes", ())):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        expected = "a whole number" if suffix == "cls" else '{"label": 7, "boxes": [[xmin, ymin, xmax, ymax], ...]}'
        raise DataError(
            f"archive '{file}', member '{member.name}': expected {expected}, got {content[:60]!r}"
        ) from None
    return said


def _is_label(value: object) -> bool:
    return type(value) is int and abs(value) < 2**31


def _is_box(value: object) -> bool:
    """Four numbers, the maxima larger than the minima."""
    if not isinstance(value, list) or len(value) != 4 or not all(type(side) in (int, float) for side in value):
        return False
    xmin, ymin, xmax, ymax = value
    return bool(-1e9 < xmin < xmax < 1e9 and -1e9 < ymin < ymax < 1e9)
