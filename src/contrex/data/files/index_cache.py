"""What was found in the folders and archives of a data set, kept for the next start.

Listing a million files or reading the headers of a thousand archives takes from seconds to, on a network file system,
many minutes, at every start and in every process. What a scan gave is therefore kept in one file per split below
`$XDG_CACHE_HOME/contrex/index` (`~/.cache/contrex/index`), never in the data set.

A part - a folder or an archive - is scanned again unless its inode, size, and times of change (mtime and ctime, which
nothing can set back) are those of the scan, so files that were added, renamed or removed are seen at the next start. A
part changed within `SETTLED` seconds of its scan is not kept: a second change may leave the same times. What cannot be
read from the cache is scanned, and what cannot be written to it is not kept. Nothing in it is executed: it is JSON and
bytes, with a checksum.

`CONTREX_NO_CACHE=1` switches it off; its files may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from contrex.records import write_atomically

VERSION = 1

SETTLED = 2.0
"""Seconds after which a second change of a folder or file shows in its times, on any file system."""

SMALLEST = 100_000
"""Bytes found, from which on they are kept: less is found again as fast as it is read."""

FEWEST = 10_000
"""Readable images, from which on verdicts are kept."""

Fingerprint = tuple[int, int, int, int]
"""Inode, size, mtime and ctime in nanoseconds."""

NEVER: Fingerprint = (0, 0, 0, 0)
"""Of what is no part of a data set."""

Kept = dict[str, tuple[Fingerprint, bytes]]
"""What was found in each part, and when."""

Scan = Callable[[str], tuple[bytes, bool]]
"""What a part holds, and whether that may be kept."""


def read_index(root: Path, name: str, parts: Sequence[str], scan: Scan) -> list[bytes]:
    """Read what each of the `parts` below `root` holds: from the cache where it is unchanged, else by `scan(part)`.

    `name` tells several indices of one root apart, such as those of its splits.
    """
    file = _cache_file(root, name)
    if file is None:
        return [scan(part)[0] for part in parts]
    kept, new, now = _read(file), Kept(), time.time_ns()
    contents = []
    for part in parts:
        before = _fingerprint(root / part)
        fingerprint, content = kept.get(part, (None, b""))
        if fingerprint != before:
            content, lasting = scan(part)
            if lasting and _settled(before, now):  # as it was before the scan: later changes show
                new[part] = (before, content)
        contents.append(content)
    if new and sum(map(len, contents)) >= SMALLEST:
        _write(file, root, {**kept, **new})
    return contents


class Verdicts:
    """Which image files can be read, so that each is decoded once and not at every start.

    A file whose inode, size or times of change differ is tried again; `name` tells several of one root apart.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._file = _cache_file(root, name)
        kept = {} if self._file is None else _read(self._file)
        self._good: set[int] = set(np.frombuffer(kept["good"][1], np.uint64).tolist()) if kept else set()
        self._faults: dict[str, str] = json.loads(kept["faults"][1]) if kept else {}
        self._now = time.time_ns()
        self._has_news = False

    def fault(self, file: Path, find: Callable[[], str | None]) -> str | None:
        """What is wrong with `file`, None if nothing is; `find` is asked where that is not known."""
        if self._file is None:
            return find()
        try:
            fingerprint = _fingerprint(file)
        except OSError:
            return find()
        key = _digest(file, fingerprint)
        if key in self._good:
            return None
        known = self._faults.get(str(key))
        if known is not None:
            return known
        fault = find()
        if _settled(fingerprint, self._now):
            self._has_news = True
            if fault is None:
                self._good.add(key)
            else:
                self._faults[str(key)] = fault
        return fault

    def save(self) -> None:
        """Write the new verdicts to the cache."""
        if self._file is None or not self._has_news or len(self._good) < FEWEST:
            return
        good = np.fromiter(self._good, np.uint64, len(self._good)).tobytes()
        _write(self._file, self._root, {"good": (NEVER, good), "faults": (NEVER, json.dumps(self._faults).encode())})


def cache_folder() -> Path | None:
    """Where indices are kept; None where that is switched off, or there is no home."""
    if os.environ.get("CONTREX_NO_CACHE"):
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    return folder / "contrex" / "index"


def _cache_file(root: Path, name: str) -> Path | None:
    folder, real = cache_folder(), os.path.realpath(root)
    # Not inside the data set: the cache would change the folders whose times it watches.
    if folder is None or Path(os.path.realpath(folder)).is_relative_to(real):
        return None
    digest = hashlib.sha256(os.fsencode(f"{name}\0{real}")).hexdigest()
    return folder / f"{digest[:32]}.npz"


def _fingerprint(path: Path) -> Fingerprint:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(file: Path, fingerprint: Fingerprint) -> int:
    """64 bits that stand for a file as it is: two of a million files share them once in ten million data sets."""
    text = os.fsencode(file) + repr(fingerprint).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def _settled(fingerprint: Fingerprint, now: int) -> bool:
    return max(fingerprint[2:]) + SETTLED * 1e9 < now


# --- the file -------------------------------------------------------------------------------------------------------


def _read(file: Path) -> Kept:
    """What is kept in `file`; nothing where it is missing, damaged or of another version."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            content = arrays["content"].tobytes()
        if header["version"] != VERSION:
            return {}
        kept: Kept = {}
        start = 0
        for part, length, *fingerprint in header["parts"]:
            inode, size, mtime, ctime = map(int, fingerprint)
            kept[part] = ((inode, size, mtime, ctime), content[start : start + length])
            start += length
    except Exception:  # a damaged file can raise anything; it is scanned and written anew
        return {}
    return kept if start == len(content) else {}


def _write(file: Path, root: Path, kept: Kept) -> None:
    parts = [(part, len(content), *fingerprint) for part, (fingerprint, content) in kept.items()]
    header = json.dumps({"version": VERSION, "root": os.path.realpath(root), "parts": parts}).encode()
    content = b"".join(content for _, content in kept.values())
    stream = io.BytesIO()
    np.savez(stream, header=np.frombuffer(header, np.uint8), content=np.frombuffer(content, np.uint8))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, stream.getvalue())
    except OSError:
        return  # a full or read-only home makes the next start slower, nothing else
