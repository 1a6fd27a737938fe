"""Importing large libraries without Python's search for cyclic garbage, which finds none there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Put off the search for cyclic garbage, for imports inside.

    torch and timm make a million objects that stay, and Python looks through all that there are again and again while
    they come: a quarter of the time that the imports take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
