"""Full disks and flipped bytes, through the real command where a run is needed."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess

import pytest

from contrex.errors import CheckpointError
from contrex.training.checkpoint import Checkpoints
from survival.command import SLOW, assert_same_run, finish, is_whole, kill_all, last_step, start, wait_for_step

TRIALS = int(os.environ.get("CONTREX_FAULTS", "5"))
EPOCHS = 2 + TRIALS // 2

pytestmark = pytest.mark.survival


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    finish(folder, epochs=EPOCHS)
    return folder


def fail_to_write(process, folder):
    """Let it end by itself, and return what it said."""
    _, error = process.communicate(timeout=SLOW)
    assert process.returncode == 2, error.decode()
    assert is_whole(folder)
    return " ".join(error.decode().split())


def test_the_disk_takes_no_more_bytes_of_a_file(tmp_path, straight, tally):
    rng = random.Random(0)
    with tally.counting("no room for the whole checkpoint (file size limit)") as outcomes:
        for step in sorted(rng.sample(range(1, 20 * (EPOCHS - 1)), TRIALS)):
            process = start(tmp_path, epochs=EPOCHS)
            wait_for_step(process, tmp_path, step)
            smallest = min(path.stat().st_size for path in tmp_path.glob("checkpoints/*.pt"))
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (rng.randrange(40_000, smallest),) * 2)
            said = fail_to_write(process, tmp_path)
            assert f"the checkpoint before it is kept, step-{last_step(tmp_path):08d}" in said
            outcomes.append(not list(tmp_path.glob("checkpoints/.*")))
        finish(tmp_path, epochs=EPOCHS)
        assert_same_run(straight, tmp_path)
    assert all(outcomes)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of sixteen megabytes, room for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full(small_disk, straight, tally):
    """Something else fills it while the run goes on; when that is gone, the run goes on."""
    rng, filler = random.Random(1), small_disk / "filler"
    run = small_disk / "run"
    with tally.counting("the disk is full") as outcomes:
        for step in sorted(rng.sample(range(1, 20 * (EPOCHS - 1)), TRIALS)):
            process = start(run, epochs=EPOCHS)
            wait_for_step(process, run, step)
            fill(filler, process)
            said = fail_to_write(process, run)
            assert "No space left on device" in said
            outcomes.append(True)
            filler.unlink()
        finish(run, epochs=EPOCHS)
        assert_same_run(straight, run)
    assert all(outcomes)


def fill(filler, process):
    """Take what is free, and what becomes free, until the process has ended."""
    with filler.open("ab", buffering=0) as stream:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                while stream.write(b"x" * 4096):
                    pass


def test_flipped_bytes(tmp_path, tally):
    process = start(tmp_path, epochs=EPOCHS)
    wait_for_step(process, tmp_path, 3)
    kill_all(process)
    rng, checkpoints = random.Random(2), Checkpoints(tmp_path)
    path = checkpoints.folder / checkpoints._read_index()["last"]["file"]
    whole = path.read_bytes()
    with tally.counting("a flipped bit in a checkpoint is refused by name") as outcomes:
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
                checkpoints.load()
            outcomes.append(True)
        path.write_bytes(whole)
        assert is_whole(tmp_path)
