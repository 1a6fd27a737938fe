"""Drawings of lines over a pair of axes, for training curves and measured curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.report.numbers import number

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 12, 182
_MARKERS = 6

MARKERS = (
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "M-2.8 -2.8h5.6v5.6h-5.6z",
    "M0 -3.6L3.4 2.6H-3.4z",
    "M0 -3.9L3.9 0L0 3.9L-3.9 0z",
    "M0 3.6L3.4 -2.6H-3.4z",
    "M-3 -3L3 3M-3 3L3 -3",
    "M-3.6 0H3.6M0 -3.6V3.6",
)
"""Marker shapes around the origin, one per series: circle, square, triangle, diamond, triangle down, cross, plus."""

Point = tuple[float, float, float, float]
"""x, y, and the two ends of the band around y, NaN without a band."""


@dataclass(frozen=True)
class Curve:
    """A line in the units of its axes. A `faint` one is one of several seeds."""

    series: int
    name: str
    points: Sequence[Point]
    faint: bool = False


@dataclass(frozen=True)
class DrawnLine:
    """A curve in the units of the drawing: its path, its markers, and the outline of its band (empty without)."""

    series: int
    name: str
    path: str
    band: str
    markers: Sequence[tuple[float, float]]
    faint: bool


@dataclass(frozen=True)
class Tick:
    """A number on an axis, and its position in the drawing."""

    position: float
    text: str


@dataclass(frozen=True)
class Plot:
    """One small drawing. `diagonal` is the path of y = x, empty where that line has no meaning."""

    title: str
    description: str
    x_title: str
    y_title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[DrawnLine]
    diagonal: str = ""


@dataclass(frozen=True)
class Axis:
    """A linear scale from [low, high] to [start, end] of the drawing."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Axis:
        """An axis that holds all `values`, with a margin."""
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, start, end)

    def place(self, value: float) -> float:
        """The position of `value` in the drawing."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, *, whole: bool = False) -> list[Tick]:
        """About five round numbers inside the range; with `whole`, only whole ones."""
        step = nice_step(max((self.high - self.low) / 5, 1.0 if whole else 0.0))
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [Tick(self.place(i * step), number(i * step, places)) for i in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """The smallest number of at least `rough` that is 1, 2 or 5 times a power of ten.

    >>> nice_step(3.2), nice_step(0.11), nice_step(60)
    (5.0, 0.2, 100.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def axes_over(curves: Sequence[Curve], *, square: bool = False) -> tuple[Axis, Axis]:
    """Axes that hold all points and bands; with `square` both have the same range, 0 to 1 or 0 to 100."""
    points = [point for curve in curves for point in curve.points]
    xs = [x for x, *_ in points]
    ys = [y for _, *values in points for y in values if math.isfinite(y)]
    if square:
        xs = ys = [0.0, 1.0 if max(*xs, *ys) <= 1 else 100.0, *xs, *ys]
    return Axis.over(xs, LEFT, RIGHT), Axis.over(ys, BOTTOM, TOP)


def plot(
    title: str,
    curves: Sequence[Curve],
    axes: tuple[Axis, Axis],
    *,
    x_title: str,
    y_title: str = "",
    description: str = "",
    diagonal: bool = False,
) -> Plot:
    """The drawing of `curves` over a pair of `axes`."""
    x_axis, y_axis = axes
    whole = all(float(x).is_integer() for curve in curves for x, *_ in curve.points)
    ends = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
    corner = [(x_axis.place(end), y_axis.place(end)) for end in ends]
    lines = [_line(curve, x_axis, y_axis) for curve in curves if curve.points]
    path = _path(corner) if diagonal and ends[0] < ends[1] else ""
    return Plot(title, description or described(title, x_title, curves), x_title, y_title, x_axis.ticks(whole=whole),
                y_axis.ticks(), lines, path)  # fmt: skip


def described(title: str, x_title: str, curves: Sequence[Curve]) -> str:
    """The drawing in words: where each line ends."""
    ends = [f"{curve.name} ends at {number(curve.points[-1][1])}" for curve in curves if curve.points]
    return f"{title} over {x_title}: {'; '.join(ends)}."


def _line(curve: Curve, x_axis: Axis, y_axis: Axis) -> DrawnLine:
    drawn = [(x_axis.place(x), y_axis.place(y)) for x, y, *_ in curve.points]
    step = max(1, math.ceil(len(drawn) / _MARKERS))
    markers = drawn[curve.series % step :: step] if len(drawn) > 1 else drawn
    band = "".join(_outline(part, x_axis, y_axis) for part in _banded(curve.points))
    return DrawnLine(curve.series, curve.name, _path(drawn), band, markers, curve.faint)


def _banded(points: Sequence[Point]) -> list[list[Point]]:
    """The parts of a line whose points have a band, each of two points or more."""
    parts: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[2]) and math.isfinite(point[3]):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if len(part) > 1]


def _outline(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    upper = [(x_axis.place(x), y_axis.place(high)) for x, _, _, high in points]
    lower = [(x_axis.place(x), y_axis.place(low)) for x, _, low, _ in reversed(points)]
    return f"{_path([*upper, *lower])}z"


def _path(drawn: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn)
