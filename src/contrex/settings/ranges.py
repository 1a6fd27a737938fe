"""Checks of values: one outside its range is an `ArgumentError` with the field's name on the command line."""

from __future__ import annotations

import math

from contrex.errors import ArgumentError


def check(ok: bool, name: str, value: object, must: str) -> None:
    """Raise an `ArgumentError` unless `ok`; `must` says what the value must be."""
    if not ok:
        raise ArgumentError(f"`{name}` must be {must}, got {value}.")


def check_at_least(least: int, group: str, **values: float | None) -> None:
    """Check that every value is None, or a finite number of at least `least`."""
    for name, value in values.items():
        check(value is None or least <= value < math.inf, f"{group}.{name}", value, f"at least {least}")


def check_positive(group: str, **values: float | None) -> None:
    """Check that every value is None, or a finite number above 0."""
    for name, value in values.items():
        check(value is None or 0 < value < math.inf, f"{group}.{name}", value, "positive")


def check_square(image_size: int, resize: int) -> None:
    """Check that the square that a network sees fits into the resized image."""
    check_at_least(1, "data", resize=resize)
    must = f"from 1 to `data.resize` ({resize}), which it is cut out of"
    check(1 <= image_size <= resize, "data.image_size", image_size, must)
