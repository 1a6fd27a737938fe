"""The exceptions that contrex raises on purpose.

A message names the argument, its value and the fix. All exceptions derive from `ContrexError`, so that the command line
can print the message without a traceback, and from the built-in exception that a caller would expect.
"""

from __future__ import annotations

import difflib
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import TypeVar


class ContrexError(Exception):
    """The base of all errors that are raised on purpose; `exit_code` is that of the command line."""

    exit_code = 2


class ArgumentError(ContrexError, ValueError):
    """An argument has a value that the function cannot use."""


class UnknownNameError(ArgumentError):
    """A name is not among the known ones."""


class LayerError(ArgumentError):
    """The layer to explain does not exist, did not run, or does not give a feature map."""


class LayerWarning(UserWarning):
    """The layer to explain is not the only way from the pixels to the logits, so its map is only a part of the
    reasons."""


class NormalisationWarning(UserWarning):
    """The mean or std that was given is not what the weights were trained with."""


class GlyphWarning(UserWarning):
    """Letters that no font of this machine has, so that a picture shows boxes in their place."""


class NotDifferentiableError(ContrexError, TypeError):
    """A differentiable heatmap was asked of an explainer that cannot give one."""


class DataError(ContrexError, ValueError):
    """A data set on disk is not as its reader expects."""


class ImageError(DataError):
    """An image file cannot be read, or not correctly."""


class WeightsError(ContrexError, ValueError):
    """A weights file does not fit the network."""


class CheckpointError(ContrexError, ValueError):
    """A checkpoint is missing, damaged, or from another run."""


class BusyRunError(ContrexError, RuntimeError):
    """Another process works in the folder of a run."""


class RecordError(ContrexError, ValueError):
    """A record is missing, damaged, or of another schema version."""


class NotVerifiedError(RecordError):
    """What a record was made of has changed, or is gone."""

    exit_code = 1


class NonFiniteLossError(ContrexError, ArithmeticError):
    """The training loss, its gradient or the validation logits became NaN or infinite."""

    exit_code = 3


class ProcessError(ContrexError, RuntimeError):
    """Another process of this run has failed, so this one ends too."""

    exit_code = 1


class InterruptedRunError(ContrexError):
    """A signal stopped the run after a resumable checkpoint was written; `command` continues it, where it is None the
    same as before."""

    def __init__(self, stopped: str, signal_number: int, command: str | None = None) -> None:
        way = "the same command with --resume continues." if command is None else f"continue with: {command}"
        super().__init__(f"{stopped}; {way}")
        self.stopped, self.signal_number = stopped, signal_number
        self.exit_code = 128 + signal_number


def warn(message: str, category: type[Warning]) -> None:
    """Warn with the line of the user's own code that led here, outside of contrex and torch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("contrex", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level - 1)


E = TypeVar("E", bound=ContrexError)


def unwrapped(error: E) -> E:
    """The error as it was raised, without the worker's traceback that a DataLoader puts into the message.

    >>> unwrapped(ImageError("Caught ImageError in a worker.\\nTraceback:\\ncontrex.errors.ImageError: no pixels.\\n"))
    ImageError('no pixels.')
    """
    kind = type(error)
    _, wrapping, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return kind(message.strip()) if wrapping else error


_STEERS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text that follows."""


def printable(text: object) -> str:
    """The text with escapes for what steers a terminal or cannot be encoded; line breaks stay.

    Names of files and classes come from whoever made the data: one could clear the screen, or run backwards.

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
"""The most choices that a message lists; of more it gives the nearest ones."""


def unknown_name(what: str, name: object, choices: Iterable[str], *, near: Sequence[str] = ()) -> UnknownNameError:
    """The error for a `name` that is not among `choices`, with the nearest choice: one of `near`, if there are any.

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
