"""Reading what any explainer can be told beside its own options: views to average, and layers to fuse."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from contrex.errors import ArgumentError, unknown_name

GENERAL_OPTIONS = ("augment", "fuse")
"""The options of any explainer."""

HOW_TO_FUSE = ("mean", "max", "product", "layer_cam")


@dataclass(frozen=True)
class View:
    """One changed copy of an image: mirrored or not, its sides times `scale`, its pixels times `factor`."""

    flip: bool
    scale: float
    factor: float

    @property
    def moves(self) -> bool:
        """Whether what is in the image has another place, or another size, in the copy."""
        return self.flip or self.scale != 1

    def sides(self, sides: Sequence[int]) -> list[int]:
        """The sides of the copy of an image with these sides."""
        return [max(1, round(self.scale * side)) for side in sides]


@dataclass(frozen=True)
class Augment:
    """Changed copies of an image whose maps are averaged: every combination of these, and of leaving each out."""

    flip: bool = False
    scales: Sequence[float] = ()
    factors: Sequence[float] = ()

    @property
    def views(self) -> Sequence[View]:
        """The copies, without the image itself."""
        flips = (False, True) if self.flip else (False,)
        _, *changed = itertools.product(flips, (1.0, *self.scales), (1.0, *self.factors))
        return [View(*one) for one in changed]

    def __str__(self) -> str:
        told = {"scale": self.scales, "times": self.factors}
        numbers = [f"{name}({', '.join(map(repr, some))})" for name, some in told.items() if some]
        return ", ".join([*["flip"] * self.flip, *numbers])


@dataclass(frozen=True)
class Fuse:
    """How the maps of several layers become one. Without `layers` they are found."""

    how: str
    layers: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.how}({', '.join(self.layers)})" if self.layers else self.how


@lru_cache
def read_augment(text: str) -> Augment:
    """Read the views to average.

    Raises:
        ArgumentError: the text is not made of flip, scale(...) and times(...), or a number does not fit.

    >>> read_augment("times(0.9, 1.1), flip")
    Augment(flip=True, scales=(), factors=(0.9, 1.1))
    >>> len(read_augment("times(0.9, 1.1), flip").views), str(read_augment("scale( 2 ),flip"))
    (5, 'flip, scale(2.0)')
    """
    found: dict[str, tuple[float, ...]] = {}
    for part in _parts(text):
        name, values = _named(part)
        if name not in ("flip", "scale", "times") or name in found or (name == "flip") != (values is None):
            raise _refused(text)
        numbers = tuple(one for one in values or () if isinstance(one, float) and 0 < one != 1 and isfinite(one))
        if values is not None and (not values or len(numbers) != len(values)):
            raise ArgumentError(f"`augment` {text!r}: {name} needs numbers above 0, and not 1, the image itself.")
        found[name] = numbers
    return Augment("flip" in found, found.get("scale", ()), found.get("times", ()))


def _parts(text: str) -> Sequence[ast.expr]:
    try:
        read = ast.parse(f"({text},)", mode="eval").body if isinstance(text, str) else None
    except (SyntaxError, ValueError):
        read = None
    if not isinstance(read, ast.Tuple) or not read.elts:
        raise _refused(text)
    return read.elts


def _named(part: ast.expr) -> tuple[str, Sequence[object] | None]:
    """The name of a part of the text, and the values in its brackets; None without brackets."""
    if isinstance(part, ast.Name):
        return part.id, None
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and not part.keywords:
        constants = [one.value for one in part.args if isinstance(one, ast.Constant)]
        numbers = [float(one) for one in constants if isinstance(one, (int, float)) and not isinstance(one, bool)]
        return part.func.id, [*numbers, *[None] * (len(part.args) - len(numbers))]  # None does not fit
    return "", None


def _refused(text: object) -> ArgumentError:
    return ArgumentError(
        f'`augment` must be some of flip, scale(0.75, 1.25) and times(0.9, 1.1), as in "flip, times(0.9, 1.1)"; got '
        f"{text!r}."
    )


@lru_cache
def read_fuse(text: str) -> Fuse:
    """Read how to fuse layers, and which.

    Raises:
        UnknownNameError: there is no such way.
        ArgumentError: the text has another form, a layer is named twice, or only one is.

    >>> read_fuse("mean( layer3,layer4 )"), str(read_fuse("max()"))
    (Fuse(how='mean', layers=('layer3', 'layer4')), 'max')
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([\w\s.,]*)\)\s*)?", text) if isinstance(text, str) else None
    if match is None:
        raise ArgumentError(f'`fuse` must be as in "mean(layer3, layer4)" or "product"; got {text!r}.')
    how, layers = match[1], tuple(name.strip() for name in (match[2] or "").split(",") if name.strip())
    if how not in HOW_TO_FUSE:
        raise unknown_name("`fuse`", how, HOW_TO_FUSE)
    if len(layers) == 1 or len(set(layers)) != len(layers):
        raise ArgumentError(f"`fuse` {text!r} must name several different layers, or none: then they are found.")
    return Fuse(how, layers)
