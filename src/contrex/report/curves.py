"""Training curves: a small drawing for each quantity, with a line for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrex.records import RunRecord
from contrex.report.groups import RunGroup
from contrex.report.numbers import number
from contrex.report.plot import Curve, Plot, Point, axes_over, described, plot
from contrex.report.seeds import finite, mean_deviation, mean_over_seeds

MAX_POINTS = 200
STABILITY = ("val_top1", "val_loss")
"""The curves whose spread over seeds says how steady a training is (ExCon, section 4.2 and Figure 3)."""

VALIDATION = {
    "val_top1": "validation top-1 (%)",
    "val_loss": "validation loss",
    "val_agreement": "agreement on kept-out photos (%)",
    "val_divergence": "divergence on kept-out photos",
}
"""The words for the curves of a validation, with labels and without."""


def curve_panels(groups: Sequence[RunGroup]) -> list[Plot]:
    """A drawing for each curve that any run has, in order of first appearance."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.record.curves)
    panels = [_panel(name, groups) for name in names]
    return [panel for panel in panels if panel is not None]


def _panel(name: str, groups: Sequence[RunGroup]) -> Plot | None:
    curves = [curve for series, group in enumerate(groups) for curve in _curves(series, group, name)]
    if not curves:
        return None
    title = readable(name)
    words = " ".join([described(title, "epochs", curves), *_spread(name, groups)])
    return plot(title, curves, axes_over(curves), x_title="epoch", description=words)


def _curves(series: int, group: RunGroup, name: str) -> list[Curve]:
    """The mean over seeds with its band, or each seed faintly where they were recorded at different epochs."""
    seeds = {run.record.name: points for run in group.runs if (points := _recorded(run, name))}
    if len(seeds) < 2:
        return [Curve(series, label, thinned(_bandless(points))) for label, points in seeds.items()]
    mean = mean_over_seeds(list(seeds.values()))
    if mean:
        return [Curve(series, f"{group.label} (mean over {len(seeds)} seeds)", thinned(mean))]
    return [Curve(series, label, thinned(_bandless(points)), faint=True) for label, points in seeds.items()]


def _recorded(run: RunRecord, name: str) -> list[tuple[float, float]]:
    """The finite points of a curve. Shares of the training images become percent, as in validation."""
    unit = 100 if _is_share(name) else 1
    return [(x, unit * y) for x, y in finite(run.record.curves.get(name, ()))]


def _is_share(name: str) -> bool:
    return name.split("_")[-1] == "accuracy"


def _bandless(points: Sequence[tuple[float, float]]) -> list[Point]:
    return [(x, y, math.nan, math.nan) for x, y in points]


def readable(name: str) -> str:
    """The name of a curve in words.

    >>> readable("val_top1"), readable("classifier_accuracy"), readable("consistency")
    ('validation top-1 (%)', 'classifier accuracy (%)', 'consistency')
    """
    return VALIDATION.get(name, name.replace("_", " ") + " (%)" * _is_share(name))


def thinned(points: Sequence[Point]) -> list[Point]:
    """The curve with at most 200 points, each the mean of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size <= 1:
        return list(points)
    return [_mean_point(points[start : start + size]) for start in range(0, len(points), size)]


def _mean_point(points: Sequence[Point]) -> Point:
    x, y, low, high = (sum(values) / len(points) for values in zip(*points, strict=True))
    return x, y, low, high


# --- how steady the training was ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StabilityRow:
    """How steady one method is over several seeds: a text for each of `Stability.names`."""

    series: int
    label: str
    num_seeds: int
    values: Sequence[str]


@dataclass(frozen=True)
class Stability:
    """How steady the trainings are: standard deviations over seeds, averaged over epochs."""

    names: Sequence[str]
    rows: Sequence[StabilityRow]


def stability(groups: Sequence[RunGroup]) -> Stability:
    """The table of how steady methods are, as in the caption of ExCon's Figure 3 (0.63, 0.69, 0.92).

    It has no rows without several seeds.
    """
    several = [(series, group) for series, group in enumerate(groups) if len(group.runs) > 1]
    names = [name for name in STABILITY if any(math.isfinite(_deviation(group, name)) for _, group in several)]
    rows = [
        StabilityRow(s, group.label, len(group.runs), [number(_deviation(group, name)) for name in names])
        for s, group in several
    ]
    return Stability([readable(name) for name in names], rows if names else [])


def _deviation(group: RunGroup, name: str) -> float:
    return mean_deviation([_recorded(run, name) for run in group.runs])


def _spread(name: str, groups: Sequence[RunGroup]) -> list[str]:
    """A sentence on the spread of the curve `name` over seeds; none without several seeds."""
    spreads = [(group.label, _deviation(group, name)) for group in groups if len(group.runs) > 1]
    known = [f"{label} {number(value)}" for label, value in spreads if math.isfinite(value)]
    return [f"Standard deviation over seeds, averaged over epochs: {'; '.join(known)}."] if known else []
