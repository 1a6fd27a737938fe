"""One process at a time in a run's folder.

    RUN/lock    the process that works on the run holds its lock; it says which process took it last

The lock is the kernel's (`flock`), so it is gone with its process, whatever ends it, and there is nothing to clean up:
the file stays and means nothing by itself. Folders that several machines share have it too, where their file system
passes locks on, as NFS and Lustre (mounted with `flock`) do; where it has none, a warning says so. Windows has no such
lock: there, nothing is noticed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contrex import ranks
from contrex.errors import BusyRunError

NAME = "lock"

_held: dict[tuple[Path, int], int] = {}
"""The descriptors of the locks that this process holds, by folder and thread."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all other processes out of `folder` for a while. A thread that holds the lock already may come in again.

    Of several processes of one run (`contrex.ranks`) all call it, and the first one holds the lock.

    Raises:
        BusyRunError: another process holds it; the message names folder and process.
    """
    with ExitStack() as stack:
        ranks.from_first(lambda: stack.enter_context(_taken(folder)))
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of `folder` now."""
    try:
        with locked(folder):
            return False
    except BusyRunError:
        return True


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    place = (folder.resolve(), threading.get_ident())
    if sys.platform == "win32" or place in _held:
        yield
        return
    is_new = not folder.exists()
    descriptor = _acquired(folder)
    _held[place] = descriptor
    try:
        yield
    finally:
        del _held[place]
        if is_new and [file.name for file in folder.iterdir()] == [NAME]:  # nothing came of it
            (folder / NAME).unlink()
            folder.rmdir()
        os.close(descriptor)  # and the lock with it


def _acquired(folder: Path) -> int:
    """The open descriptor of the lock file, locked where its file system has locks."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 300, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise BusyRunError(
            f"{folder} is being worked on by {holder}: wait for it, stop it, or choose another --folder."
        ) from None
    except OSError as error:
        warnings.warn(
            f"{folder / NAME} cannot be locked ({error.strerror}): nobody notices a second process in this folder, so "
            "start none.",
            stacklevel=2,
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _let_go() -> None:
    """Close the locks in a forked process: a loader's worker must not keep the lock when the run's process is
    killed."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
