"""Checkpoints: what is kept, what is refused, and what is left when the writer dies or the disk is full."""

import errno
import hashlib
import io
import json
import os
import resource
from pathlib import Path

import pytest
import torch

from contrex.errors import CheckpointError, WeightsError
from contrex.models.load import read_state_dict
from contrex.training import checkpoint as module
from contrex.training.checkpoint import Checkpoints


def content(value):
    return {"step": {"w": torch.full((1000,), float(value))}, "place": {"step": value}}


def value_of(checkpoints, which="last"):
    return checkpoints.load(which)["place"]["step"]


def test_last_and_best_are_kept_and_nothing_else(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.exists()
    for step, best in ((1, True), (2, True), (3, False), (4, False)):
        checkpoints.save(content(step), step=step, best=best)
    assert (value_of(checkpoints), value_of(checkpoints, "best")) == (4, 2)
    assert sorted(path.suffix for path in checkpoints.folder.iterdir()) == [".json", ".pt", ".pt"]


def test_files_load_as_tensors_only(tmp_path):
    Checkpoints(tmp_path).save(content(1), step=1, best=False)
    (path,) = tmp_path.glob("checkpoints/*.pt")
    assert torch.load(path, weights_only=True)["place"] == {"step": 1}


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_changed_bytes_are_refused_by_name(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(1), step=1, best=False)
    (path,) = tmp_path.glob("checkpoints/*.pt")
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes({"flip": bytes(payload), "truncate": bytes(payload[:-100]), "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=f"{path.name} is damaged: its SHA-256 differs"):
        checkpoints.load()


def test_missing_checkpoints_and_a_damaged_index(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"no 'last' checkpoint in .*: it has none"):
        checkpoints.load()
    checkpoints.save(content(1), step=1, best=False)
    with pytest.raises(CheckpointError, match=r"no 'best' checkpoint in .*: it has \['last'\]"):
        checkpoints.load("best")
    next(tmp_path.glob("checkpoints/*.pt")).unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        checkpoints.load()
    for damaged in (
        "{",
        "[]",
        '{"last": 1}',
        '{"last": {"file": "../../x.pt", "sha256": ""}}',
        '{"last": {"file": "x"}}',
        "[" * 200_000,
    ):
        (checkpoints.folder / "index.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"index.json is damaged"):
            checkpoints.load()


@pytest.mark.parametrize(
    ("version", "writer", "message"),
    [
        (3, "9.1", r"schema version 3 of contrex 9.1, this contrex reads 2: upgrade contrex"),
        (1, None, r"schema version 1 of an older contrex, this contrex reads 2: finish or export that run with"),
        (4, None, r"schema version 4 of a newer contrex, .*: upgrade contrex"),
        (None, None, r"has no schema version: contrex did not write it"),
        ("2", None, r"has no schema version: contrex did not write it"),
    ],
)
def test_other_schema_versions_are_refused_with_what_to_do(tmp_path, version, writer, message):
    stream = io.BytesIO()
    torch.save({"schema_version": version, "contrex": writer, "steps": []}, stream)
    with pytest.raises(CheckpointError, match=message):
        forged(tmp_path, stream.getvalue()).load()


def forged(run, payload):
    """A run folder whose index vouches for `payload`."""
    folder = run / "checkpoints"
    folder.mkdir()
    (folder / "x.pt").write_bytes(payload)
    entry = {"file": "x.pt", "sha256": hashlib.sha256(payload).hexdigest(), "step": 1}
    (folder / "index.json").write_text(json.dumps({"last": entry}))
    return Checkpoints(run)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_a_file_is_refused_and_not_executed(tmp_path):
    """In a checkpoint that its index vouches for, and in a file of weights."""
    marker = tmp_path / "executed"
    stream = io.BytesIO()
    torch.save({"schema_version": 2, "weight": torch.zeros(1), "more": Payload(marker)}, stream)
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)  # the payload works: it makes the file
    marker.unlink()
    with pytest.raises(CheckpointError, match=r"x.pt is refused: it holds more than tensors .* Nothing .* executed"):
        forged(tmp_path, stream.getvalue()).load()
    (tmp_path / "weights.pth").write_bytes(stream.getvalue())
    with pytest.raises(WeightsError, match=r"weights.pth cannot be read as tensors only"):
        read_state_dict(tmp_path / "weights.pth")
    assert not marker.exists()


@pytest.mark.parametrize("payload", [b"", b"PK\x03\x04nothing", b"\x80\x02.", b"text"])
def test_files_that_are_no_checkpoints(tmp_path, payload):
    with pytest.raises(CheckpointError, match=r"x.pt (cannot be read|is refused|has no schema version)"):
        forged(tmp_path, payload).load()


# --- full disks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["_write", "write_json", "_sync"])
def test_a_full_disk_keeps_the_checkpoint_before_and_what_it_wrote_is_removed(tmp_path, monkeypatch, victim):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(1), step=1, best=True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, victim, full)
    with pytest.raises(
        CheckpointError,
        match=r"could not be written .*No space left.*the checkpoint before it is kept, step-00000001-.*pt of step 1: "
        r"free space on the disk and continue with --resume",
    ):
        checkpoints.save(content(2), step=2, best=True)
    assert value_of(checkpoints) == value_of(checkpoints, "best") == 1
    assert len(list(checkpoints.folder.iterdir())) == 2


def test_a_full_disk_at_the_first_checkpoint_says_that_there_is_none(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(CheckpointError, match=r"No space left.*there is none before it: free space on the disk and"):
        checkpoints.save(content(1), step=1, best=False)
    assert not checkpoints.exists()


def test_a_file_system_that_takes_no_more_bytes(tmp_path):
    """Not a patched function: the kernel stops the write in the middle of the file."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(1), step=1, best=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        with pytest.raises(CheckpointError, match=r"could not be written .*File too large.*is kept, step-00000001"):
            checkpoints.save({"w": torch.zeros(100_000)}, step=2, best=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert value_of(checkpoints) == 1
    assert len(list(checkpoints.folder.iterdir())) == 2


# --- sudden ends ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it, and nothing of this process reaches the disk after it."""


class Disk:
    """Counts what reaches the disk, and ends the process at operation number `last`: a write half done, everything
    else before it is done."""

    def __init__(self, monkeypatch, last):
        self.done, self.last, self.log = 0, last, []
        opened, disk = Path.open, self
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name), name))

        class Torn(io.FileIO):
            def write(self, data):
                half = bytes(data)[: len(data) // 2]
                disk.count("write", lambda: io.FileIO.write(self, half))
                return super().write(data)

        def open_torn(path, mode="r", *rest, **more):
            if mode != "wb":
                return opened(path, mode, *rest, **more)
            self.count("open")
            return Torn(path, "wb")

        monkeypatch.setattr(Path, "open", open_torn)

    def count(self, name, at_death=lambda: None):
        if self.done == self.last:
            self.last = -1
            at_death()
        if self.last == -1:
            raise Killed
        self.done += 1
        self.log.append(name)

    def counted(self, act, name):
        def counting(*arguments, **options):
            self.count(name)
            return act(*arguments, **options)

        return counting


def test_the_index_names_whole_files_whenever_the_writer_dies(tmp_path, monkeypatch):
    """Die at each write, sync, rename and removal of a save in turn: what the index names always loads, the old or the
    new one, and the next save cleans up."""
    found = []
    for last in range(100):
        run = tmp_path / str(last)
        Checkpoints(run).save(content(1), step=1, best=True)
        with monkeypatch.context() as patch:
            disk = Disk(patch, last)
            try:
                Checkpoints(run).save(content(2), step=2, best=True)
            except Killed:
                pass
            else:
                break
        found.append(value_of(Checkpoints(run)))
        assert value_of(Checkpoints(run), "best") == found[-1]
        Checkpoints(run).save(content(3), step=3, best=False)
        assert (value_of(Checkpoints(run)), value_of(Checkpoints(run), "best")) == (3, found[-1])
        assert len(list((run / "checkpoints").iterdir())) == 3
    assert disk.log.count("replace") == 2
    assert disk.log.count("write") > 2, "a checkpoint is written as it is made, not from a copy in memory"
    assert disk.log.count("fsync") == 4
    assert len(found) == len(disk.log)
    assert found == sorted(found)
    assert set(found) == {1, 2}


def test_files_reach_the_disk_before_the_index_names_them_and_old_ones_go_after(tmp_path, monkeypatch):
    """What a power failure needs beyond kill -9: file, its name, index, its name; only then is anything removed."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(1), step=1, best=False)
    with monkeypatch.context() as patch:
        disk = Disk(patch, 1000)
        checkpoints.save(content(2), step=2, best=False)
    steps = [name for name in disk.log if name in ("write", "fsync", "replace")]
    steps = [name for name, before in zip(steps, ["", *steps], strict=False) if (name, before) != ("write", "write")]
    assert steps == ["write", "fsync", "replace", "fsync"] * 2
    assert sum(1 for path in checkpoints.folder.iterdir() if path.suffix == ".pt") == 1
