"""One process at a time in a run's folder: who is refused, and when the lock is gone."""

import errno
import fcntl
import os
import signal
import threading
import time
import warnings

import pytest

from contrex.errors import ArgumentError, BusyRunError
from contrex.training import lock, train
from contrex.training.lock import is_locked, locked
from training.runs import quiet, tiny, varied


@pytest.fixture
def holder(tmp_path):
    """The id of another process in `tmp_path / "run"`, which has forked a third one, as a loader does."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which wait for nothing here
        holder = os.fork()
    if not holder:
        try:
            with locked(tmp_path / "run"):
                if third := os.fork():
                    os.write(writing, f"{os.getpid()} {third}\n".encode())
                time.sleep(30)
        finally:
            os._exit(0)
    named, third = map(int, os.read(reading, 100).split())
    assert named == holder
    yield holder
    os.kill(third, signal.SIGKILL)  # it has what this process had open, and whoever reads from it would wait
    os.close(reading)
    os.close(writing)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    run = tmp_path / "run"
    message = rf"run is being worked on by process {holder} on .*: wait for it, stop it, or choose another --folder"
    assert is_locked(run)
    with pytest.raises(BusyRunError, match=message):
        train(tiny(), run, console=quiet())
    assert [file.name for file in run.iterdir()] == ["lock"]
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert not is_locked(run)  # what it has forked lives on, and does not have it
    train(varied(tiny(), epochs=1), run, console=quiet())


def test_a_thread_may_come_in_again_and_another_may_not(tmp_path):
    found = []
    with locked(tmp_path), locked(tmp_path):
        thread = threading.Thread(target=lambda: found.append(is_locked(tmp_path)))
        thread.start()
        thread.join()
    assert found == [True]
    assert not is_locked(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert not is_locked(tmp_path)


def test_a_run_that_never_began_leaves_no_folder(tmp_path):
    with pytest.raises(ArgumentError, match="batch_size"):
        train(tiny(batch_size=100), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ArgumentError, match="batch_size"):
        train(tiny(batch_size=100), tmp_path / "mine", console=quiet())
    assert (tmp_path / "mine").exists()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    message = r"lock cannot be locked \(No locks available\): nobody notices a second"
    with pytest.warns(UserWarning, match=message), locked(tmp_path):
        assert lock._held
    assert not lock._held
