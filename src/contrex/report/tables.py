"""Methods x metrics: the numbers of the comparison, before anything is drawn or printed."""

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
from contrex.report.numbers import Estimate


@dataclass(frozen=True)
class Difference:
    """A value minus the baseline's, over `num_pairs` images, or episodes, of both; 0 pairs: a plain difference of the
    two means.

    `signs` counts on how many of these it is above and below; None without pairs, and where the values of single images
    mean nothing.
    """

    estimate: Estimate
    num_pairs: int
    signs: SignTest | None = None
    over: str = "images"
    """What the pairs are: images, or episodes."""


@dataclass(frozen=True)
class Cell:
    """One metric of one group.

    `estimate` is the value with its 95 % interval for one run, and the mean over seeds with mean -+ `deviation` (the
    standard deviation over seeds) for several. `num_counted` and `num_skipped` hold one number per run. `verdict` is
    what the metric itself concluded, as a check of parameters does; empty for most.
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
    """What several runs are: seeds, or episodes."""

    @property
    def is_aggregate(self) -> bool:
        return len(self.num_counted) > 1


@dataclass(frozen=True)
class Column:
    """A metric, the family whose table it is in, and what it means: sentences with the labels of the methods that they
    are true of, as a metric may be measured in other ways in other runs."""

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    family: MetricFamily = field(default_factory=lambda: MetricFamily(""))
    meanings: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodRow:
    """A group with one cell per column name; None where it was not measured in every run of the group."""

    group: RunGroup
    cells: Mapping[str, Cell | None]


@dataclass(frozen=True)
class Comparison:
    """The whole table; the first row is the baseline."""

    columns: Sequence[Column]
    rows: Sequence[MethodRow]

    def cells(self, name: str) -> list[Cell | None]:
        """The cells of one metric, one per method."""
        return [row.cells[name] for row in self.rows]


def comparison(groups: Sequence[RunGroup]) -> Comparison:
    """The table of `groups` against the first of them."""
    columns = _columns(groups)
    rows = [MethodRow(group, {c.name: cell(group, groups[0], c.name) for c in columns}) for group in groups]
    for column in columns:
        rows = _with_best(rows, column)
    return Comparison(columns, rows)


def _columns(groups: Sequence[RunGroup]) -> list[Column]:
    found: dict[str, Column] = {}
    meanings: dict[str, dict[str, dict[str, None]]] = {}
    for group, metric in ((own, m) for own in groups for run in own.runs for m in run.record.metrics):
        family = replace(metric.family, name=metric.family.name or metric.name)
        meanings.setdefault(metric.name, {}).setdefault(family.meaning, {})[group.label] = None
        column = Column(metric.name, metric.title, metric.unit, metric.higher_is_better, family)
        found.setdefault(metric.name, column)
    return [
        replace(column, meanings={text: list(labels) for text, labels in meanings[name].items() if text})
        for name, column in found.items()
    ]


def cell(group: RunGroup, baseline: RunGroup, name: str) -> Cell | None:
    """One metric of `group`, and its difference to another group, `baseline`; None where it was not measured."""
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
        verdict=", ".join(dict.fromkeys(str(m.protocol["verdict"]) for m in metrics if m.protocol.get("verdict"))),
    )


def _metrics(group: RunGroup, name: str) -> list[MetricRecord]:
    """The metric of every run of the group; empty when a run lacks it."""
    found = [run.record.metric(name) for run in group.runs]
    present = [metric for metric in found if metric is not None]
    return present if len(present) == len(found) else []


def _estimate(metrics: Sequence[MetricRecord]) -> tuple[Estimate, float]:
    if len(metrics) == 1:
        return Estimate(metrics[0].value, metrics[0].low, metrics[0].high), math.nan
    values = [metric.value for metric in metrics]
    mean, deviation = statistics.mean(values), statistics.stdev(values)  # exact: equal values deviate by 0
    return Estimate(mean, mean - deviation, mean + deviation), deviation


def difference(group: RunGroup, baseline: RunGroup, name: str) -> Difference | None:
    """`group` minus `baseline`: paired over episodes where both have the same, and over images where all their runs
    measured the same ones of the same split."""
    metrics, reference = _metrics(group, name), _metrics(baseline, name)
    if not metrics or not reference:
        return None
    episodes = _episodes(group, baseline, name)
    if episodes:
        return Difference(episode_difference(episodes), len(episodes), episode_signs(episodes), over="episodes")
    runs = [*group.runs, *baseline.runs]
    paired = paired_values(runs, name) if len({_images_of(run.record) for run in runs}) == 1 else None
    if paired is None:
        means = [float(np.mean([metric.value for metric in side])) for side in (metrics, reference)]
        return Difference(Estimate(means[0] - means[1]), 0)
    own, others = np.split(paired, [len(group.runs)])
    alone = all(metric.per_image == "values" for metric in (*metrics, *reference))
    signs = paired_signs(own, others) if alone else None  # the shares of single images mean nothing
    return Difference(paired_difference(own, others), paired.shape[1], signs)


def _episodes(group: RunGroup, baseline: RunGroup, name: str) -> list[NDArray[np.float64]]:
    """[2, n] of each episode: the metric of both on the images that both counted. Empty where they are not the same
    episodes: the same draws, measured on the same images."""
    own, others = group.draws, baseline.draws
    if len(own) < 2 or own.keys() != others.keys():
        return []
    found = []
    for seed, run in own.items():
        pair = (run, others[seed])
        drawn = [one.record.configuration.get("checkpoint", {}).get("labelled_sha256") for one in pair]
        values = paired_values(pair, name) if len({_images_of(one.record) for one in pair}) == 1 else None
        if values is None or drawn[0] is None or drawn[0] != drawn[1]:
            return []
        found.append(values)
    return found


def _images_of(record: Record) -> str:
    """What must be equal for one path to be one image: data set and split, and all settings of generated data."""
    data = record.configuration.get("data", {})
    origin = [record.dataset.get("name"), record.dataset.get("split"), data if "seed" in data else None]
    return json.dumps(origin, sort_keys=True, default=str)


def paired_values(runs: Sequence[RunRecord], name: str) -> NDArray[np.float64] | None:
    """[runs, n]: the metric on the images that every run counted, or None when their images differ or their
    values do not average to the metric's."""
    found = [run.record.metric(name) for run in runs]
    if any(metric is None or metric.per_image == "none" for metric in found):
        return None
    tables = [sample_values(run, name) for run in runs]
    if not tables[0] or any(table.keys() != tables[0].keys() for table in tables):
        return None
    values = np.array([[table[key] for key in tables[0]] for table in tables])
    counted = ~np.isnan(values).any(axis=0)
    return values[:, counted] if counted.any() else None


def sample_values(run: RunRecord, name: str) -> dict[tuple[str, int], float]:
    """(path, label) -> the metric of that image, NaN where it was skipped; empty when there is no such column or a path
    occurs twice."""
    samples = run.samples
    if name not in samples.values:
        return {}
    images = zip(samples.paths, samples.labels.tolist(), strict=True)
    values = dict(zip(images, samples.values[name].tolist(), strict=True))
    return values if len(values) == len(samples) else {}


def _with_best(rows: Sequence[MethodRow], column: Column) -> list[MethodRow]:
    """The rows, with the best value of `column` marked (several when equal), unless it is the only value, all are equal
    or none is better."""
    cells = [row.cells[column.name] for row in rows]
    values = [cell.estimate.value for cell in cells if cell is not None and math.isfinite(cell.estimate.value)]
    if len(values) < 2 or column.higher_is_better is None:
        return list(rows)
    best = max(values) if column.higher_is_better else min(values)
    if min(values) == max(values):
        return list(rows)
    marked = [cell and replace(cell, best=cell.estimate.value == best) for cell in cells]
    return [replace(row, cells={**row.cells, column.name: cell}) for row, cell in zip(rows, marked, strict=True)]
