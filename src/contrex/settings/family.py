"""Families of settings: the kinds of one thing, such as the training methods, each naming its implementation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from contrex.errors import ArgumentError
from contrex.outside import FromAnywhere, is_outside, outside

T = TypeVar("T")


@dataclass(frozen=True)
class Family(FromAnywhere):
    """The settings of one kind of thing. The class at the head of a family sets `is_family`, as records are told by it
    that they must say which kind they hold (`contrex.records`)."""

    implementation: ClassVar[str] = ""
    """What these are the settings of, `MODULE:CLASS`, which is not imported before it is needed; in a file of one's own
    `:CLASS` is a class of the same file. Empty where a class only holds what several kinds share."""


def implementation_of(kind: type[Family], base: type[T], base_name: str) -> type[T]:
    """The class that a kind of settings names, a subclass of `base`, which messages call `base_name`.

    Raises:
        ArgumentError: it names none, or something else.
    """
    name = kind.implementation
    found: object = None
    if name.startswith(":"):
        found = getattr(sys.modules[kind.__module__], name[1:], None)
    elif is_outside(name):
        found = outside(name, f"`{kind.__name__}.implementation`")
    if not isinstance(found, type) or not issubclass(found, base):
        raise ArgumentError(
            f"`{kind.__name__}.implementation` must name a subclass of {base_name}, MODULE:CLASS, or :CLASS of the "
            f"same file; got {name!r}."
        )
    return found
