"""Drawings of points in a plane, such as t-SNE: one for each method; colours are classes, marks are kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.records import Scatter
from contrex.report.colour import SERIES
from contrex.report.groups import RunGroup

SIDE, MARGIN = 360, 12

KINDS = {
    "augmentation": "M{x} {y}m-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z",
    "image": "M{x} {y}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "masked": "M{x} {y}m-3.6-3.6l7.2 7.2m-7.2 0l7.2-7.2",
}
"""The mark of each kind of point, in drawing order: a dot, a ring, a cross."""

OTHER = "M{x} {y}m0-4l3.6 6.4h-7.2z"
"""The mark of any other kind: a triangle."""

FILLED = frozenset({"augmentation"})


@dataclass(frozen=True)
class Marks:
    """All points of one class and kind, as one path."""

    series: int
    class_name: str
    kind: str
    path: str
    filled: bool


@dataclass(frozen=True)
class ScatterPanel:
    """The drawing of one method's points."""

    title: str
    description: str
    marks: Sequence[Marks]


@dataclass(frozen=True)
class ScatterFigure:
    """One scatter of all methods, with what its colours and marks mean."""

    title: str
    panels: Sequence[ScatterPanel]
    classes: Sequence[tuple[int, str]]
    kinds: Sequence[Marks]
    """One mark of each kind around the origin, for the legend."""
    colours_repeat: bool
    one_of_several_seeds: bool


def scatter_figures(groups: Sequence[RunGroup]) -> list[ScatterFigure]:
    """A figure for each scatter that any group has; of several seeds the first is shown."""
    names = dict.fromkeys(scatter.name for group in groups for scatter in group.record.scatters)
    return [figure for name in names if (figure := _figure(name, groups)).panels]


def _figure(name: str, groups: Sequence[RunGroup]) -> ScatterFigure:
    scatters = [
        (group, scatter)
        for group in groups
        for scatter in group.record.scatters
        if scatter.name == name and _sound(scatter)
    ]
    points = [point for _, scatter in scatters for point in _sound(scatter)]
    classes = list(dict.fromkeys(label for _, _, label, _ in points))
    kinds = sorted(dict.fromkeys(kind for *_, kind in points), key=_drawn)
    panels = [_panel(group, scatter, classes, kinds) for group, scatter in scatters]
    return ScatterFigure(
        scatters[0][1].title if scatters else name,
        panels,
        list(enumerate(classes)),
        [Marks(0, "", kind, _mark(kind, 0, 0), kind in FILLED) for kind in kinds],
        len(classes) > len(SERIES),
        any(len(group.runs) > 1 for group, _ in scatters),
    )


def _drawn(kind: str) -> int:
    """The position of a kind in drawing order: small dots below, crosses above."""
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def _sound(scatter: Scatter) -> list[tuple[float, float, str, str]]:
    return [(x, y, label, kind) for x, y, label, kind in scatter.points if math.isfinite(x) and math.isfinite(y)]


def _panel(group: RunGroup, scatter: Scatter, classes: Sequence[str], kinds: Sequence[str]) -> ScatterPanel:
    points = _sound(scatter)
    places = _placed([(x, y) for x, y, *_ in points])
    marks = []
    for kind in kinds:
        for number, name in enumerate(classes):
            own = [place for place, (_, _, label, k) in zip(places, points, strict=True) if (label, k) == (name, kind)]
            if own:
                path = "".join(_mark(kind, x, y) for x, y in own)
                marks.append(Marks(number, name, kind, path, kind in FILLED))
    words = f"{scatter.title} of {group.label}: {len(points)} points of {len(classes)} classes."
    return ScatterPanel(group.label, words, marks)


def _placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points in the units of the drawing. Both axes have one scale, so that distances can be compared."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    reach = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale, middle = (SIDE - 2 * MARGIN) / reach, ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    return [(SIDE / 2 + (x - middle[0]) * scale, SIDE / 2 - (y - middle[1]) * scale) for x, y in points]


def _mark(kind: str, x: float, y: float) -> str:
    return KINDS.get(kind, OTHER).format(x=f"{x:.1f}", y=f"{y:.1f}")
