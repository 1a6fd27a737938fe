"""Every exception contrex raises on purpose, and the one sentence each of them is built from.

A message names the argument, the value it had and the fix. All of them derive from `ContrexError`, so that the
command line can print the sentence without a traceback, and from the built-in a caller would expect.
"""

from __future__ import annotations

import difflib
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import TypeVar


class ContrexError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 2


class ArgumentError(ContrexError, ValueError):
    """An argument has a value that the function cannot use."""


class UnknownNameError(ArgumentError):
    """A name is not among the known ones."""


class LayerError(ArgumentError):
    """The layer to explain does not exist, did not run, or does not give a feature map."""


class LayerWarning(UserWarning):
    """The layer to explain is not the only way from the pixels to the logits: its map is a part of the explanation."""


class NotDifferentiableError(ContrexError, TypeError):
    """A differentiable map was asked of a method that cannot give one."""


class DataError(ContrexError, ValueError):
    """A data set on disk is not laid out as its reader expects."""


class ImageError(DataError):
    """An image file cannot be read right."""


class WeightsError(ContrexError, ValueError):
    """A weights file does not fit the network."""


class CheckpointError(ContrexError, ValueError):
    """A checkpoint is missing, damaged or of another run."""


class BusyRunError(ContrexError, RuntimeError):
    """Another process works in the folder of a run."""


class RecordError(ContrexError, ValueError):
    """A record of a run is missing, damaged or of another schema version."""


class NonFiniteLossError(ContrexError, ArithmeticError):
    """The training loss, its gradient or the validation logits became NaN or infinite."""

    exit_code = 3


class ProcessError(ContrexError, RuntimeError):
    """Another process of this run has failed, and this one ends with it."""

    exit_code = 1


class InterruptedRunError(ContrexError):
    """A signal stopped the run after a resumable checkpoint was written."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the caller's own code that led here, past contrex and torch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("contrex", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level - 1)


E = TypeVar("E", bound=ContrexError)


def unwrapped(error: E) -> E:
    """`error` as it was raised: a DataLoader puts the traceback of its worker into the message.

    >>> unwrapped(ImageError("Caught ImageError in a worker.\\nTraceback:\\ncontrex.errors.ImageError: no pixels.\\n"))
    ImageError('no pixels.')
    """
    kind = type(error)
    _, wrapping, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return kind(message.strip()) if wrapping else error


_STEERS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Change the direction of the text that follows."""


def printable(text: object) -> str:
    """`text` with what steers a terminal, or cannot be encoded, as escapes; lines stay lines.

    Names of files and classes come from whoever made the data: one may clear the screen or read backwards.

    >>> print(printable(f"cat{chr(27)}[2J.jpg, {chr(0xDCFF)}.jpg, größe.jpg"))
    cat\\x1b[2J.jpg, \\udcff.jpg, größe.jpg
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _STEERS or (unicodedata.category(character) in ("Cc", "Cs") and character != "\n")
        else character
        for character in str(text)
    )


_LISTED = 24
"""Longer lists of choices are shortened to the nearest ones."""


def unknown_name(what: str, name: object, choices: Iterable[str], *, near: Sequence[str] = ()) -> UnknownNameError:
    """The error for a `name` that is not in `choices`, with the nearest choice: one of `near`, if there are any.

    >>> str(unknown_name("`explainer`", "grad_can", ["grad_cam", "gradient"]))
    "`explainer` must be one of grad_cam, gradient; got 'grad_can'. Did you mean 'grad_cam'?"
    """
    names = list(choices)
    lowered = {choice.lower(): choice for choice in names}
    alike = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered, n=5, cutoff=0.5)]
    nearest = list(near)[:5] or alike
    if len(names) > _LISTED:
        near = f" Near it: {', '.join(nearest)}." if nearest else ""
        return UnknownNameError(f"{what} must be one of {len(names)} names; got {name!r}.{near}")
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UnknownNameError(f"{what} must be one of {', '.join(names)}; got {name!r}.{hint}")
