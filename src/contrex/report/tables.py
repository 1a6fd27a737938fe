"""The numbers of a comparison, methods x metrics, before anything is drawn or printed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from contrex.ops.bootstrap import SignTest
from contrex.records import MetricFamily, MetricRecord, Record, RunRecord
from contrex.report.differences import episode_difference, episode_signs, paired_difference, paired_signs
from contrex.report.groups import RunGroup
from contrex.report.numbers import Estimate, decimals, one_digit, shared_places


@dataclass(frozen=True)
class Difference:
    """A value minus the baseline's, over `num_pairs` images or episodes that both have.

    With 0 pairs it is the difference of the two means. `signs` counts the pairs in which the value is above and below
    the baseline's; None without pairs, and where the values of single images mean nothing.
    """

    estimate: Estimate
    num_pairs: int
    signs: SignTest | None = None
    over: str = "images"
    """What the pairs are: images or episodes."""
    places: int | None = None
    """The decimals of all differences of its metric; None is as many as its own interval allows."""
    num_counted: int = 0
    """The most images that a run of either side counted: with fewer pairs, the values are of other images as well."""
    means: tuple[float, float] | None = None
    """The value and the baseline's over the paired images alone."""

    @property
    def is_told_apart(self) -> bool:
        """Whether the two sides are told apart: the interval of the paired difference excludes zero."""
        return self.num_pairs > 0 and (self.estimate.low > 0 or self.estimate.high < 0)


@dataclass(frozen=True)
class Cell:
    """One metric of one group.

    For one run, `estimate` is the value with its 95 % interval. For several it is the mean over seeds, with mean -+
    `deviation` (the standard deviation over seeds) as its interval. `num_counted` and `num_skipped` have one number for
    each run. `best` is told apart from every other. `verdict` is the metric's own conclusion, which only a few have,
    such as parameter randomisation.
    """

    estimate: Estimate
    deviation: float
    num_counted: Sequence[int]
    num_skipped: Sequence[int]
    skip_reason: str
    difference: Difference | None = None
    best: bool = False
    verdict: str = ""
    repeats: str = "seeds"
    """What several runs are: seeds or episodes."""
    places: int | None = None
    """The decimals of all values of its metric; None is as many as its own interval allows."""
    region: str = ""
    """What a content heatmap takes as the object: boxes or mask; empty where the records do not tell, or differ."""

    @property
    def is_aggregate(self) -> bool:
        """Whether it is of several runs."""
        return len(self.num_counted) > 1

    @property
    def own_places(self) -> int | None:
        """How many decimals its uncertainty allows: of seeds one digit of their standard deviation."""
        return one_digit(self.deviation) if self.is_aggregate else decimals(self.estimate.half_width)


@dataclass(frozen=True)
class Column:
    """A metric, its family, and what it means.

    `meanings` has sentences, each with the labels of the methods for which it is true: runs may have measured a metric
    in different ways.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    family: MetricFamily = field(default_factory=lambda: MetricFamily(""))
    meanings: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodRow:
    """A group with a cell for each metric, by its name; None if some run of the group did not measure it."""

    group: RunGroup
    cells: Mapping[str, Cell | None]


@dataclass(frozen=True)
class Comparison:
    """The whole table. The first row is the baseline."""

    columns: Sequence[Column]
    rows: Sequence[MethodRow]

    def cells(self, name: str) -> list[Cell | None]:
        """The cells of one metric, one for each method."""
        return [row.cells[name] for row in self.rows]


def comparison(groups: Sequence[RunGroup]) -> Comparison:
    """The table of `groups`; differences are to the first of them."""
    columns = _columns(groups)
    rows = [MethodRow(group, {c.name: cell(group, groups[0], c.name) for c in columns}) for group in groups]
    for column in columns:
        rows = _with_places(_with_best(rows, column), column.name)
    return Comparison(columns, rows)


def _columns(groups: Sequence[RunGroup]) -> list[Column]:
    columns: dict[str, Column] = {}
    meanings: dict[str, dict[str, dict[str, None]]] = {}
    for group, metric in ((own, m) for own in groups for run in own.runs for m in run.record.metrics):
        family = replace(metric.family, name=metric.family.name or metric.name)
        meanings.setdefault(metric.name, {}).setdefault(family.meaning, {})[group.label] = None
        column = Column(metric.name, metric.title, metric.unit, metric.higher_is_better, family)
        columns.setdefault(metric.name, column)
    return [
        replace(column, meanings={text: list(labels) for text, labels in meanings[name].items() if text})
        for name, column in columns.items()
    ]


def cell(group: RunGroup, baseline: RunGroup, name: str) -> Cell | None:
    """The cell of one metric and one group, with its difference to `baseline`; None if it was not measured."""
    metrics = _metrics(group, name)
    if not metrics:
        return None
    estimate, deviation = _estimate(metrics)
    return Cell(
        estimate,
        deviation,
        [metric.num_counted for metric in metrics],
        [metric.num_skipped for metric in metrics],
        next((metric.skip_reason for metric in metrics if metric.num_skipped), ""),
        None if group is baseline else difference(group, baseline, name),
        repeats=group.repeats,
        region=_one_of({str(metric.protocol.get("region", "")) for metric in metrics}),
        verdict=", ".join(dict.fromkeys(str(m.protocol["verdict"]) for m in metrics if m.protocol.get("verdict"))),
    )


def _one_of(words: set[str]) -> str:
    return words.pop() if len(words) == 1 else ""


def _metrics(group: RunGroup, name: str) -> list[MetricRecord]:
    """The metric of every run of the group; empty if a run lacks it."""
    metrics = [run.record.metric(name) for run in group.runs]
    present = [metric for metric in metrics if metric is not None]
    return present if len(present) == len(metrics) else []


def _estimate(metrics: Sequence[MetricRecord]) -> tuple[Estimate, float]:
    if len(metrics) == 1:
        return Estimate(metrics[0].value, metrics[0].low, metrics[0].high), math.nan
    values = [metric.value for metric in metrics]
    if not all(map(math.isfinite, values)):  # of seeds that counted no image there is no mean
        return Estimate(math.nan), math.nan
    mean, deviation = statistics.mean(values), statistics.stdev(values)  # exact: the deviation of equal values is 0
    return Estimate(mean, mean - deviation, mean + deviation), deviation


def difference(group: RunGroup, baseline: RunGroup, name: str) -> Difference | None:
    """The difference of `group` to `baseline`, in the best way that their records allow.

    It is paired over episodes if both have the same, else over images if all runs measured the same ones of the same
    split in the same way, else the plain difference of the means.
    """
    metrics, reference = _metrics(group, name), _metrics(baseline, name)
    if not metrics or not reference:
        return None
    episodes = _episodes(group, baseline, name) if are_one_metric([*metrics, *reference]) else []
    if episodes:
        return Difference(episode_difference(episodes), len(episodes), episode_signs(episodes), over="episodes")
    runs = [*group.runs, *baseline.runs]
    is_one = len({_images_of(run.record) for run in runs}) == 1 and are_one_metric([*metrics, *reference])
    paired = paired_values(runs, name) if is_one else None
    most = max(metric.num_counted for metric in (*metrics, *reference))
    if paired is None:
        means = [float(np.mean([metric.value for metric in side])) for side in (metrics, reference)]
        return Difference(Estimate(means[0] - means[1]), 0, num_counted=most)
    own, others = np.split(paired, [len(group.runs)])
    alone = all(metric.per_image == "values" for metric in (*metrics, *reference))
    signs = paired_signs(own, others) if alone else None  # the shares of single images mean nothing
    found = (float(own.mean()), float(others.mean()))
    return Difference(paired_difference(own, others), paired.shape[1], signs, num_counted=most, means=found)


def are_one_metric(metrics: Sequence[MetricRecord]) -> bool:
    """Whether metrics of one name were measured by one protocol, as far as their records tell: other maps may be shown
    to it, and nothing else may differ."""
    ways = [
        {
            **{key: value for key, value in one.protocol.items() if key in PROTOCOL},
            **{("of", k): v for k, v in one.dims.items()},
        }
        for one in metrics
    ]
    return all(one.get(key, value) == value for first in ways for key, value in first.items() for one in ways)


PROTOCOL = frozenset(
    [
        "baseline",
        "bins",
        "cells",
        "crop_ratio",
        "crop_scale",
        "flip",
        "least_confidence",
        "noise_std",
        "normalise",
        "num_samples",
        "num_steps",
        "output",
        "protocol",
        "radius",
        "region",
        "resized",
        "road_fractions",
        "scored_class",
        "sigma",
        "step",
        "threshold",
        "view",
    ]
)
"""What protocols are told that their names do not have, and that makes other numbers of the same maps."""


def _episodes(group: RunGroup, baseline: RunGroup, name: str) -> list[NDArray[np.float64]]:
    """The metric of both groups on their common images, [2,n] for each episode.

    Empty unless the episodes are the same: the same draws, measured on the same images.
    """
    own, others = group.draws, baseline.draws
    if len(own) < 2 or own.keys() != others.keys():
        return []
    pairs = []
    for seed, run in own.items():
        pair = (run, others[seed])
        drawn = [one.record.configuration.get("checkpoint", {}).get("labelled_sha256") for one in pair]
        values = paired_values(pair, name) if len({_images_of(one.record) for one in pair}) == 1 else None
        if values is None or drawn[0] is None or drawn[0] != drawn[1]:
            return []
        pairs.append(values)
    return pairs


def _images_of(record: Record) -> str:
    """The origin of a record's images. Where it is equal, so are images of the same path.

    It is the data set and the split, and for generated data all settings.
    """
    data = record.configuration.get("data", {})
    origin = [record.dataset.get("name"), record.dataset.get("split"), data if "seed" in data else None]
    return json.dumps(origin, sort_keys=True, default=str)


def paired_values(runs: Sequence[RunRecord], name: str) -> NDArray[np.float64] | None:
    """The metric on the images that every run counted, [runs,n].

    None if the runs have different images, or if the values of images do not average to the metric.
    """
    metrics = [run.record.metric(name) for run in runs]
    if any(metric is None or metric.per_image == "none" for metric in metrics):
        return None
    tables = [_by_image(run, name) for run in runs]
    if not tables[0] or any(table.keys() != tables[0].keys() for table in tables):
        return None
    values = np.array([[table[key] for key in tables[0]] for table in tables])
    counted = ~np.isnan(values).any(axis=0)
    return values[:, counted] if counted.any() else None


def _by_image(run: RunRecord, name: str) -> Mapping[tuple[str, int], float]:
    """The metric of each image as `sample_values` has it, by its path and 0 where no path comes twice: where several
    classes are right, the label is the one that a network prefers."""
    values = sample_values(run, name)
    alone = {(path, 0): value for (path, _), value in values.items()}
    return alone if len(alone) == len(values) else values


def sample_values(run: RunRecord, name: str) -> dict[tuple[str, int], float]:
    """The metric of each image by (path, label), NaN where it was skipped.

    Empty if the metric has no values of images, or if a path occurs twice with one label.
    """
    samples = run.samples
    if name not in samples.values:
        return {}
    images = zip(samples.paths, samples.labels.tolist(), strict=True)
    values = dict(zip(images, samples.values[name].tolist(), strict=True))
    return values if len(values) == len(samples) else {}


def _with_best(rows: Sequence[MethodRow], column: Column) -> list[MethodRow]:
    """The rows with the best value of `column` marked, where it is told apart from every other."""
    measured = [
        row for row in rows if (own := row.cells[column.name]) is not None and math.isfinite(own.estimate.value)
    ]
    if len(measured) < 2 or column.higher_is_better is None:
        return list(rows)
    sign = 1 if column.higher_is_better else -1
    best = max(measured, key=lambda row: sign * _cell(row, column.name).estimate.value)
    if not all(sign * _lead(best, row, rows[0], column.name) > 0 for row in measured if row is not best):
        return list(rows)
    marked = replace(_cell(best, column.name), best=True)
    return [replace(row, cells={**row.cells, column.name: marked}) if row is best else row for row in rows]


def _lead(row: MethodRow, other: MethodRow, baseline: MethodRow, name: str) -> float:
    """The difference of a method to another on the images of both, 0 where they are not told apart; the differences to
    the baseline are known. It may have another sign than that of their values, which are of the images of each."""
    if baseline in (row, other):
        known = _cell(row if other is baseline else other, name).difference
    else:
        known = difference(row.group, other.group, name)
    if known is None or not known.is_told_apart:
        return 0.0
    return -known.estimate.value if row is baseline else known.estimate.value


def _cell(row: MethodRow, name: str) -> Cell:
    """The cell of a metric that the row has."""
    own = row.cells[name]
    assert own is not None
    return own


def _with_places(rows: Sequence[MethodRow], name: str) -> list[MethodRow]:
    """The rows with one number of decimals for all values of a metric, and one for all of its differences."""
    cells = [own for row in rows if (own := row.cells[name]) is not None]
    changes = [own.difference.estimate for own in cells if own.difference is not None]
    values = shared_places([(own.estimate, own.own_places) for own in cells])
    signed = shared_places([(change, decimals(change.half_width)) for change in changes])
    return [
        row if own is None else replace(row, cells={**row.cells, name: _placed(own, values, signed)})
        for row in rows
        for own in (row.cells[name],)
    ]


def _placed(own: Cell, places: int | None, signed: int | None) -> Cell:
    change = own.difference
    return replace(own, places=places, difference=change if change is None else replace(change, places=signed))
