"""Training curves as small multiples: one drawing per quantity, one line per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.report.groups import Group
from contrex.report.numbers import number

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 12, 182
MAX_POINTS = 200
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
"""Marker shapes around the origin, one per group: circle, square, triangle, diamond, triangle down, cross, plus."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One run's curve in drawing units; `faint` is one of several seeds."""

    series: int
    name: str
    path: str
    markers: Sequence[tuple[float, float]]
    faint: bool


@dataclass(frozen=True)
class Tick:
    position: float
    text: str


@dataclass(frozen=True)
class CurvePanel:
    """One quantity, ready to draw."""

    title: str
    description: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]


def curve_panels(groups: Sequence[Group]) -> list[CurvePanel]:
    """A panel per curve name found in any run, in order of first appearance."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.record.curves)
    panels = [_panel(name, groups) for name in names]
    return [panel for panel in panels if panel is not None]


def _panel(name: str, groups: Sequence[Group]) -> CurvePanel | None:
    found = [
        (series, group, run.record.name, thinned(finite(run.record.curves[name])))
        for series, group in enumerate(groups)
        for run in group.runs
        if name in run.record.curves
    ]
    points = [point for *_, curve in found for point in curve]
    if not points:
        return None
    x_axis, y_axis = Axis.over([x for x, _ in points], LEFT, RIGHT), Axis.over([y for _, y in points], BOTTOM, TOP)
    lines = [
        _line(series, run_name, curve, x_axis, y_axis, faint=len(group.runs) > 1)
        for series, group, run_name, curve in found
        if curve
    ]
    return CurvePanel(readable(name), _described(name, found), x_axis.ticks(), y_axis.ticks(), lines)


def readable(name: str) -> str:
    """A curve's name in words.

    >>> readable("train_loss"), readable("val/top1")
    ('train loss', 'val: top1')
    """
    return name.replace("/", ": ").replace("_", " ")


def finite(points: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    """The points without those that have no finite value."""
    return [(x, y) for x, y in points if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most 200 points: the means of runs of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return list(points)
    return [_mean_point(points[start : start + size]) for start in range(0, len(points), size)]


def _mean_point(points: Points) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _described(name: str, found: Sequence[tuple[int, Group, str, Points]]) -> str:
    """The drawing in words: where each line ends."""
    ends = [f"{run} ends at {number(curve[-1][1])}" for _, _, run, curve in found if curve]
    return f"{readable(name)} over epochs: {'; '.join(ends)}."


def _line(series: int, name: str, curve: Points, x_axis: Axis, y_axis: Axis, *, faint: bool) -> Line:
    drawn = [(x_axis.place(x), y_axis.place(y)) for x, y in curve]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn)
    step = max(1, math.ceil(len(drawn) / _MARKERS))
    return Line(series, name, path, drawn[series % step :: step] if len(drawn) > 1 else drawn, faint)


@dataclass(frozen=True)
class Axis:
    """A linear scale from [low, high] to [start, end] of the drawing."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Axis:
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, start, end)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[Tick]:
        """About five round numbers inside the range."""
        step = nice_step((self.high - self.low) / 5)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [Tick(self.place(i * step), number(i * step, places)) for i in range(first, last + 1)]


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `rough`.

    >>> nice_step(3.2), nice_step(0.11), nice_step(60)
    (5.0, 0.2, 100.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
