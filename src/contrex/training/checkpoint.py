"""Checkpoints that survive crashes, full disks and flipped bits.

    checkpoints/
        step-00000244-5f0c1a9e.pt    one file per kept checkpoint: tensors and plain values, loads with `weights_only`
        index.json                   which file is the last and which the best, with their SHA-256

The index is replaced atomically after the file it names is safely on disk. Whatever happens in between, the index names
a whole checkpoint: the new one or the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from contrex.errors import CheckpointError
from contrex.records import write_atomically, write_json

SCHEMA_VERSION = 2


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"
        self._index = self.folder / "index.json"

    def exists(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self._index.is_file()

    def save(self, content: Mapping[str, Any], *, step: int, best: bool) -> None:
        """Write `content` as the last checkpoint, and as the best one when `best`; drop files no longer named."""
        stream = io.BytesIO()
        torch.save({"schema_version": SCHEMA_VERSION, **content}, stream)
        payload = stream.getvalue()
        digest = hashlib.sha256(payload).hexdigest()
        name = f"step-{step:08d}-{digest[:8]}.pt"
        entry = {"file": name, "sha256": digest, "step": step}
        index = {**self._read_index(), "last": entry, **({"best": entry} if best else {})}
        try:
            write_atomically(self.folder / name, payload)
            write_json(self._index, index)
        except OSError as error:
            kept = "the checkpoint before it is kept" if self.exists() else "there is none before it"
            raise CheckpointError(f"checkpoint {self.folder / name} could not be written ({error}); {kept}.") from None
        self._drop_all_but({named["file"] for named in index.values()})

    def load(self, which: str = "last") -> dict[str, Any]:
        """The content of the `"last"` or `"best"` checkpoint.

        Raises:
            CheckpointError: there is none, its bytes have changed, or another schema version wrote it.
        """
        index = self._read_index()
        if which not in index:
            raise CheckpointError(f"no {which!r} checkpoint in {self.folder}: it has {sorted(index) or 'none'}.")
        path = self.folder / index[which]["file"]
        try:
            payload = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}.") from None
        if hashlib.sha256(payload).hexdigest() != index[which]["sha256"]:
            raise CheckpointError(f"checkpoint {path} is damaged: its SHA-256 differs from {self._index}.")
        return _content(payload, path)

    def _read_index(self) -> dict[str, dict[str, Any]]:
        if not self.exists():
            return {}
        try:
            index: dict[str, dict[str, Any]] = json.loads(self._index.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{self._index} is damaged: {error}.") from None
        return index

    def _drop_all_but(self, names: set[str]) -> None:
        for path in self.folder.glob("step-*.pt"):
            if path.name not in names:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _content(payload: bytes, path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}.") from None
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise CheckpointError(f"checkpoint {path} has schema version {version}, this contrex reads {SCHEMA_VERSION}.")
    return content
