"""Running compiled parts of a network as they are written.

Hooks set after a module was compiled do not run in it, and what is intercepted or differentiated twice must not
be compiled either. `module.compile()`, `torch.compile` around a submodule and functions compiled inside `forward` all
obey torch's stance, so nothing in the network is touched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch

_LOCK = threading.Lock()
_open: list[AbstractContextManager[None]] = []
"""The one stance set, which the last thread to leave puts back, and a mark for each thread inside."""
_thread = threading.local()


@contextmanager
def uncompiled(*, always: bool = False) -> Iterator[None]:
    """Run compiled code as it was written, in this process, for a while; threads may enter and leave in any order.

    With `always` also inside `compiled_as_it_is`: for a pass with hooks on every module, which dynamo would trace.
    """
    is_needed = "torch._dynamo" in sys.modules and (always or not getattr(_thread, "keeps", False))
    if not is_needed or torch.compiler.is_compiling():  # else nothing can be compiled, and the import takes seconds
        yield
        return
    with _LOCK:
        # The stance is global to the process, so the first to enter sets it and the last to leave puts it back.
        _open.append(_open[0] if _open else _eager())
    try:
        yield
    finally:
        with _LOCK:
            stance = _open.pop()
            if not _open:
                stance.__exit__(None, None, None)


@contextmanager
def compiled_as_it_is() -> Iterator[None]:
    """Switch `uncompiled` off in this thread for a while: whoever compiled the network left out what is explained."""
    before, _thread.keeps = getattr(_thread, "keeps", False), True
    try:
        yield
    finally:
        _thread.keeps = before


def _eager() -> AbstractContextManager[None]:
    """Set the stance that compiles nothing."""
    return cast("AbstractContextManager[None]", cast(Any, torch.compiler.set_stance)("force_eager"))
