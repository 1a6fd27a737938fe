"""Training: one readable loop, checkpoints that survive, a log that can be replayed.

Names are loaded when they are first used: who explains with a trained run does not wait for the loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contrex.training.contact_sheet import sheets
    from contrex.training.log import curves, read_log
    from contrex.training.loggers import Logger
    from contrex.training.loop import train
    from contrex.training.timing import read_timing
    from contrex.training.trained import load_trained, saved_recipe

__all__ = ["Logger", "curves", "load_trained", "read_log", "read_timing", "saved_recipe", "sheets", "train"]

_PLACES = {
    "Logger": "loggers",
    "curves": "log",
    "load_trained": "trained",
    "read_log": "log",
    "read_timing": "timing",
    "saved_recipe": "trained",
    "sheets": "contact_sheet",
    "train": "loop",
}


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(importlib.import_module(f"contrex.training.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'contrex.training' has no attribute {name!r}")
