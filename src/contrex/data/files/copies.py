"""Files with the same content: copies, and what links lead to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path

START = 16384
"""Bytes of a file's start that are read first: they tell most files of one size apart."""


def content_keys(files: Sequence[Path]) -> list[Hashable]:
    """Give each file a key that another one has exactly where their contents are the same.

    No more is read of a file than it takes to tell it from the others: its size, its start, all of it. One that cannot
    be read is like no other; where it is needed, it ends in an error of its own.
    """
    keys: list[tuple[object, ...]] = [(file.stat().st_size,) for file in files]
    for num_bytes in (START, -1):
        times = Counter(keys)
        keys = [
            (*key, _digest(file, num_bytes)) if times[key] > 1 else key for file, key in zip(files, keys, strict=True)
        ]
    return list(keys)


def _digest(file: Path, num_bytes: int) -> object:
    try:
        with file.open("rb") as opened:
            return hashlib.sha256(opened.read(num_bytes)).digest()
    except OSError:
        return file
