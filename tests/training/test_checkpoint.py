import errno
import json

import pytest
import torch

from contrex.errors import CheckpointError
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


def test_missing_and_foreign_checkpoints(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"no 'last' checkpoint in .*: it has none"):
        checkpoints.load()
    checkpoints.save(content(1), step=1, best=False)
    with pytest.raises(CheckpointError, match=r"no 'best' checkpoint in .*: it has \['last'\]"):
        checkpoints.load("best")
    monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    with pytest.raises(CheckpointError, match="has schema version 2, this contrex reads 3"):
        checkpoints.load()
    next(tmp_path.glob("checkpoints/*.pt")).unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        checkpoints.load()
    (checkpoints.folder / "index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"index.json is damaged"):
        checkpoints.load()


@pytest.mark.parametrize("victim", ["write_atomically", "write_json"])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, victim):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(1), step=1, best=True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, victim, full)
    with pytest.raises(
        CheckpointError, match=r"could not be written .*No space left.*the checkpoint before it is kept"
    ):
        checkpoints.save(content(2), step=2, best=True)
    assert value_of(checkpoints) == 1
    assert value_of(checkpoints, "best") == 1


def test_the_index_names_whole_files_whenever_the_writer_dies(tmp_path, monkeypatch):
    """Die after each write call of a save in turn: what the index names always loads."""
    for dies_after in (0, 1):
        folder = tmp_path / str(dies_after)
        checkpoints = Checkpoints(folder)
        checkpoints.save(content(1), step=1, best=True)
        with monkeypatch.context() as patch:
            real, calls = module.write_atomically, []

            def dying(path, payload, real=real, calls=calls, dies_after=dies_after):
                if len(calls) == dies_after:
                    raise KeyboardInterrupt
                calls.append(path)
                real(path, payload)

            patch.setattr(module, "write_atomically", dying)
            patch.setattr(
                module, "write_json", lambda path, value, dying=dying: dying(path, json.dumps(value).encode())
            )
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(content(2), step=2, best=True)
        assert value_of(Checkpoints(folder)) == 1
        Checkpoints(folder).save(content(3), step=3, best=False)
        assert (value_of(Checkpoints(folder)), value_of(Checkpoints(folder), "best")) == (3, 1)
