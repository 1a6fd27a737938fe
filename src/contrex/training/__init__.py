"""Training: one readable loop, checkpoints that survive, a log that can be replayed."""

from contrex.training.contact_sheet import sheets
from contrex.training.log import curves, read_log
from contrex.training.loop import train
from contrex.training.timing import read_timing
from contrex.training.trained import load_trained, saved_recipe

__all__ = ["curves", "load_trained", "read_log", "read_timing", "saved_recipe", "sheets", "train"]
