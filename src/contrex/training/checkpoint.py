"""Checkpoints that survive crashes, full disks and flipped bits.

    checkpoints/
        step-00000244-5f0c1a9e.pt    one file per kept checkpoint: tensors and plain values, loads with `weights_only`
        index.json                   which file is the last and which the best, with their SHA-256

The index is replaced atomically after the file it names is safely on disk, and files that it no longer names go after
that. Whatever happens in between, the index names a whole checkpoint: the new one or the one before. The disk needs
room for three: the last, the best and the one being written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

from contrex._version import __version__
from contrex.errors import CheckpointError
from contrex.records import write_json

SCHEMA_VERSION = 2


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"
        self._index = self.folder / "index.json"

    def exists(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self._index.is_file()

    def file(self, which: str = "last") -> str | None:
        """The name of the `"last"` or `"best"` checkpoint's file, which no other content has; None without one."""
        return self._read_index().get(which, {}).get("file")

    def finished(self, which: str = "last") -> str | None:
        """The checkpoint's file as `file` gives it, where the run has come to its end; otherwise None."""
        index = self._read_index()
        return index.get(which, {}).get("file") if index.get("last", {}).get("finished") else None

    def save(self, content: Mapping[str, Any], *, step: int, best: bool) -> None:
        """Write `content` as the last checkpoint, and as the best one when `best`; drop files no longer named. The
        index keeps whether it is `finished`, at the run's end.

        Raises:
            CheckpointError: the disk is full, or cannot be written for another reason; the one before is kept.
        """
        before, start = self._read_index(), f"step-{step:08d}"
        try:
            digest = _write({"schema_version": SCHEMA_VERSION, "contrex": __version__, **content}, self.folder, start)
            name = f"{start}-{digest[:8]}.pt"
            entry = {"file": name, "sha256": digest, "step": step, "finished": content.get("finished", False)}
            index = {**before, "last": entry, **({"best": entry} if best else {})}
            _sync(self.folder)  # also after a power failure, the index never names a file that is not there
            write_json(self._index, index)
            _sync(self.folder)
        except OSError as error:
            self._drop_all_but(_files(self._read_index()))  # what was written of it only fills the disk further
            raise CheckpointError(
                f"checkpoint {self.folder / start} could not be written ({error}); {_kept(before)}."
            ) from None
        # Last of all: until the index was replaced, these were the checkpoints.
        self._drop_all_but(_files(index))

    def load(self, which: str = "last") -> dict[str, Any]:
        """The content of the `"last"` or `"best"` checkpoint.

        Raises:
            CheckpointError: there is none, its bytes have changed, it holds code, or another schema version wrote it.
        """
        return self.load_file(which)[0]

    def load_file(self, which: str = "last") -> tuple[dict[str, Any], str]:
        """The content of a checkpoint, and the name of the file that it is from: a run that goes on may have another
        one a moment later. Errors are those of `load`."""
        index = self._read_index()
        if not self.folder.parent.is_dir():
            raise CheckpointError(f"there is no run {self.folder.parent}: no such folder.")
        if which not in index:
            raise CheckpointError(f"no {which!r} checkpoint in {self.folder}: it has {sorted(index) or 'none'}.")
        path = self.folder / index[which]["file"]
        try:
            payload = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}.") from None
        if hashlib.sha256(payload).hexdigest() != index[which]["sha256"]:
            raise CheckpointError(f"checkpoint {path} is damaged: its SHA-256 differs from {self._index}.")
        return _content(payload, path), path.name

    def _read_index(self) -> dict[str, dict[str, Any]]:
        if not self.exists():
            return {}
        try:
            index: dict[str, dict[str, Any]] = json.loads(self._index.read_text(encoding="utf-8"))
            for entry in index.values():
                if Path(entry["file"]).name != entry["file"] or not isinstance(entry["sha256"], str):
                    raise ValueError(f"{entry} names no checkpoint of this folder")
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(f"{self._index} is damaged: {error}.") from None
        return index

    def _drop_all_but(self, names: set[str]) -> None:
        for path in self.folder.glob("step-*.pt"):
            if path.name not in names:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


class _Hashing:
    """A file for `torch.save` to write into, which takes the SHA-256 of what goes through it and keeps no copy."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None
        """What the file system said when it took no more: torch only says that a file has another length."""

    def write(self, data: bytes | memoryview) -> int:
        try:
            self._stream.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def _write(content: Mapping[str, Any], folder: Path, start: str) -> str:
    """Write `content` into a file of `folder` that is called `start`, its SHA-256 and `.pt`: whole, or not at all. The
    SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{start}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as stream:
            file = _Hashing(stream)
            try:
                torch.save(content, file)  # type: ignore[arg-type]
            except RuntimeError as error:
                raise file.error or error from None
            stream.flush()
            os.fsync(stream.fileno())
        digest = file.sha256.hexdigest()
        temporary.replace(folder / f"{start}-{digest[:8]}.pt")
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def _files(index: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {entry["file"] for entry in index.values()}


def _kept(index: Mapping[str, Mapping[str, Any]]) -> str:
    """The sentences of an error about what a failed save has left, and what to do."""
    if "last" not in index:
        return "there is none before it: free space on the disk and start again"
    return (
        f"the checkpoint before it is kept, {index['last']['file']} of step {index['last']['step']}: free space on the "
        "disk and continue with --resume"
    )


def _sync(folder: Path) -> None:
    """Put the names in `folder` on the disk, not only the content of its files; Windows does so itself."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(payload: bytes, path: Path) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise CheckpointError(
            f"checkpoint {path} is refused: it holds more than tensors and plain values, which could be code, or is no "
            "checkpoint. Nothing of it was executed."
        ) from None
    except Exception as error:  # a file that is no checkpoint can raise anything in the unpickler
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"checkpoint {path} cannot be read: {reason}.") from None
    version = content.get("schema_version") if isinstance(content, Mapping) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(_other_version(path, content, version))
    return dict(content)


def _other_version(path: Path, content: Any, version: object) -> str:
    """Why a checkpoint of another schema version is refused, and what to do."""
    if type(version) is not int:
        return f"checkpoint {path} has no schema version: contrex did not write it."
    name = content.get("contrex")
    newer = version > SCHEMA_VERSION
    writer = f"contrex {name}" if isinstance(name, str) else f"{'a newer' if newer else 'an older'} contrex"
    fix = "upgrade contrex" if newer else "finish or export that run with the contrex that wrote it, or train it again"
    return f"checkpoint {path} has schema version {version} of {writer}, this contrex reads {SCHEMA_VERSION}: {fix}."
