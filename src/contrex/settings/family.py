"""Families of settings: all kinds of one thing, such as training methods. Each kind names its implementation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from contrex.errors import ArgumentError
from contrex.outside import FromAnywhere, is_outside, outside

T = TypeVar("T")


@dataclass(frozen=True)
class Family(FromAnywhere):
    """The base of settings that come in kinds.

    The class at the head of a family sets `is_family`. It tells `contrex.records` to write which kind the settings are.
    """

    implementation: ClassVar[str] = ""
    """The class that these settings are for, as `MODULE:CLASS`; it is imported when it is needed. In a file of your
    own, `:CLASS` is a class of the same file. Empty in a class that only holds fields of several kinds."""


def implementation_of(kind: type[Family], base: type[T], base_name: str) -> type[T]:
    """The class that a kind of settings names: a subclass of `base`, which errors call `base_name`.

    Raises:
        ArgumentError: the kind names no class, or one that is no subclass of `base`.
    """
    name = kind.implementation
    named: object = None
    if name.startswith(":"):
        named = getattr(sys.modules[kind.__module__], name[1:], None)
    elif is_outside(name):
        named = outside(name, f"`{kind.__name__}.implementation`")
    if not isinstance(named, type) or not issubclass(named, base):
        raise ArgumentError(
            f"`{kind.__name__}.implementation` must name a subclass of {base_name}, MODULE:CLASS, or :CLASS of the "
            f"same file; got {name!r}."
        )
    return named
