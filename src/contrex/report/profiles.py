"""Curves that metrics measured, as small multiples.

A profile of one line is one drawing, a line per method. One of several lines (a gradient-sign curve for each
explanation, say) is a drawing per method over shared axes, with colours for its lines instead of the methods.
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
"""The first series that lines within a profile take, so that two or three methods' colours are not theirs."""


@dataclass(frozen=True)
class ProfileFigure:
    """One profile: its drawings and, where its lines have names, a legend of (series, name)."""

    title: str
    panels: Sequence[Plot]
    legend: Sequence[tuple[int, str]] = ()
    has_diagonal: bool = False


def profile_figures(groups: Sequence[RunGroup]) -> list[ProfileFigure]:
    """A figure per profile name found in any run, in order of first appearance."""
    names = dict.fromkeys(p.name for group in groups for run in group.runs for p in run.record.profiles)
    figures = [_figure(name, groups) for name in names]
    return [figure for figure in figures if figure.panels]


def _figure(name: str, groups: Sequence[RunGroup]) -> ProfileFigure:
    found = [(series, group, _profiles(group, name)) for series, group in enumerate(groups)]
    present = [profile for _, _, profiles in found for profile in profiles]
    first = present[0]
    lines = list(dict.fromkeys(line for profile in present for line in profile.lines))
    if len(lines) > 1:
        return _of_several_lines(first, lines, [(group, profiles) for _, group, profiles in found if profiles])
    curves = [curve for series, group, profiles in found for curve in _curves(series, group.label, profiles, lines)]
    if not curves:
        return ProfileFigure(first.title, ())
    return ProfileFigure(
        first.title, [_plot(first.title, first, curves, curves)], has_diagonal=first.chart == "reliability"
    )


def _of_several_lines(
    first: Profile, lines: Sequence[str], found: Sequence[tuple[RunGroup, Sequence[Profile]]]
) -> ProfileFigure:
    """A panel per method; the axes hold the lines of all of them."""
    series = {line: LINES_FROM + place for place, line in enumerate(lines)}
    by_group = {
        group.label: [c for line in lines for c in _curves(series[line], line, profiles, [line])]
        for group, profiles in found
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
    """The line of one run with its interval, or the mean over seeds with its deviation; each seed faintly where they
    were not measured at the same places."""
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
