"""The curves that metrics measured, as small drawings.

A profile with one line gives one drawing, with a line for each method. A profile with several lines, such as a
gradient-sign curve for each explanation, gives a drawing for each method; the axes are shared, and the colours tell the
lines apart instead of the methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.records import Profile
from contrex.report.groups import RunGroup
from contrex.report.plot import Curve, Plot, Point, axes_over, plot
from contrex.report.seeds import finite, mean_over_seeds

LINES_FROM = 3
"""The first colour for lines within a profile: those before it are the colours of methods."""


@dataclass(frozen=True)
class ProfileFigure:
    """The drawings of one profile and, if it has several lines, a legend of (series, name)."""

    title: str
    panels: Sequence[Plot]
    legend: Sequence[tuple[int, str]] = ()
    has_diagonal: bool = False


def profile_figures(groups: Sequence[RunGroup]) -> list[ProfileFigure]:
    """A figure for each profile that any run has, in order of first appearance."""
    names = dict.fromkeys(p.name for group in groups for run in group.runs for p in run.record.profiles)
    figures = [_figure(name, groups) for name in names]
    return [figure for figure in figures if figure.panels]


def _figure(name: str, groups: Sequence[RunGroup]) -> ProfileFigure:
    measured = [(series, group, _profiles(group, name)) for series, group in enumerate(groups)]
    present = [profile for _, _, profiles in measured for profile in profiles]
    first = present[0]
    lines = list(dict.fromkeys(line for profile in present for line in profile.lines))
    if len(lines) > 1:
        return _of_several_lines(first, lines, [(group, profiles) for _, group, profiles in measured if profiles])
    curves = [curve for series, group, profiles in measured for curve in _curves(series, group.label, profiles, lines)]
    if not curves:
        return ProfileFigure(first.title, ())
    return ProfileFigure(
        first.title, [_plot(first.title, first, curves, curves)], has_diagonal=first.chart == "reliability"
    )


def _of_several_lines(
    first: Profile, lines: Sequence[str], measured: Sequence[tuple[RunGroup, Sequence[Profile]]]
) -> ProfileFigure:
    """The figure of a profile with several lines: a drawing for each method, over shared axes."""
    series = {line: LINES_FROM + place for place, line in enumerate(lines)}
    by_group = {
        group.label: [c for line in lines for c in _curves(series[line], line, profiles, [line])]
        for group, profiles in measured
    }
    everything = [curve for curves in by_group.values() for curve in curves]
    panels = [_plot(label, first, curves, everything) for label, curves in by_group.items() if curves]
    legend = [(series[line], line) for line in lines]
    return ProfileFigure(first.title, panels, legend, has_diagonal=first.chart == "reliability")


def _plot(title: str, profile: Profile, curves: Sequence[Curve], everything: Sequence[Curve]) -> Plot:
    diagonal = profile.chart == "reliability"  # the two axes are equal for a calibrated network
    axes = axes_over(everything, square=diagonal)
    return plot(title, curves, axes, x_title=profile.x_title, y_title=profile.y_title, diagonal=diagonal)


def _profiles(group: RunGroup, name: str) -> list[Profile]:
    return [profile for run in group.runs for profile in run.record.profiles if profile.name == name]


def _curves(series: int, label: str, profiles: Sequence[Profile], lines: Sequence[str]) -> list[Curve]:
    """The curve of one run with its interval, or of the mean over seeds with its standard deviation.

    Each seed is drawn faintly where they were measured at different places.
    """
    measured = [points for profile in profiles for line in lines if (points := _sound(profile.lines.get(line, ())))]
    if len(measured) < 2:
        return [Curve(series, label, points) for points in measured]
    mean = mean_over_seeds([finite([(x, y) for x, y, *_ in points]) for points in measured])
    if mean:
        return [Curve(series, label, mean)]
    return [Curve(series, label, points, faint=True) for points in measured]


def _sound(points: Sequence[Point]) -> list[Point]:
    """The points that have a mean."""
    return [(x, y, low, high) for x, y, low, high in points if math.isfinite(x) and math.isfinite(y)]
