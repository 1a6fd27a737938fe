"""Reading the name of a contrast with options: `weighted`, `mean(strength=0.5)`, `nearest(k=3, alpha=1.0)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from contrex.errors import ArgumentError, unknown_name
from contrex.settings.explainer import read_explainer

CONTRAST_NAMES = ("mean", "max", "weighted", "nearest")

NUM_NEAREST = 3
"""Classes that a target is set against by `nearest` where nobody says how many; Finer-CAM's code has as many."""

# A misspelt name with options is a contrast too, not a class: the error then says which contrasts there are.
_CONTRAST = re.compile(rf"\s*(?:(?:{'|'.join(CONTRAST_NAMES)})\s*(?:\(.*)?|\w+\s*\(.*=.*)", re.DOTALL)


@dataclass(frozen=True)
class ContrastText:
    """A contrast by name: how much of what it sets against the target is taken off, and of how many classes (`nearest`
    only)."""

    name: str
    strength: float = 1.0
    k: int = NUM_NEAREST

    def __str__(self) -> str:
        """The one spelling of the contrast, as in records: options that are not the default, in one order."""
        given = [f"k={self.k}"] if self.k != NUM_NEAREST else []
        if self.strength != 1:
            given.append(f"{'alpha' if self.name == 'nearest' else 'strength'}={self.strength!r}")
        return f"{self.name}({', '.join(given)})" if given else self.name


def is_contrast(text: object) -> bool:
    """Whether a text names a contrast, not a class; what is in the brackets is not looked at."""
    return isinstance(text, str) and _CONTRAST.fullmatch(text) is not None


def check_contrast(contrast: str | None, what: str = "`method.contrast`") -> None:
    """Refuse the text of a contrast that cannot be read; errors as in `read_contrast`."""
    if contrast is not None:
        read_contrast(contrast, what)


@lru_cache
def read_contrast(text: str, what: str = "`contrast`") -> ContrastText:
    """Read the name of a contrast with its options; `what` is the argument's name, for the error.

    Raises:
        UnknownNameError: there is no such contrast.
        ArgumentError: it is not written as a call with keywords, has no such option, or a value does not fit.

    >>> read_contrast("nearest(alpha=0.6)")
    ContrastText(name='nearest', strength=0.6, k=3)
    >>> str(read_contrast(" nearest( alpha = 1, k = 5 ) ")), str(read_contrast("mean(strength=1)"))
    ('nearest(k=5)', 'mean')
    """
    read = read_explainer(text, what, 'nearest(k=3, alpha=1.0)" or "weighted(strength=0.5)')
    if read.name not in CONTRAST_NAMES:
        raise unknown_name(what, read.name, CONTRAST_NAMES)
    options = dict(read.options)
    strength = "alpha" if read.name == "nearest" else "strength"
    known = ("k", strength) if read.name == "nearest" else (strength,)
    if unknown := [name for name in options if name not in known]:
        raise ArgumentError(f"{what} {text!r}: {read.name} has no option {unknown[0]!r}, only {' and '.join(known)}.")
    share, k = options.get(strength, 1.0), options.get("k", NUM_NEAREST)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not (isfinite(share) and share >= 0):
        raise ArgumentError(
            f"{what} {text!r}: {strength} must be a number from 0 on, got {share!r}; 1 is the whole contrast, 0 none."
        )
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError(f"{what} {text!r}: k must be a whole number of classes, at least 1, got {k!r}.")
    return ContrastText(read.name, float(share), k)
