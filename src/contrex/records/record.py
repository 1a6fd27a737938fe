"""The dataclasses of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 2
"""The version that is written. Version 1, which did not say what its numbers mean, can be read too (`version1.py`)."""

PerImage = Literal["values", "shares", "none"]
"""How a metric's value follows from the values of single images: it is their mean (`values`); it is their mean, but a
single one says nothing about its image (`shares`, as for a calibration error); or it is not their mean (`none`)."""


Dims = Mapping[str, str | float | bool]
"""What sets a metric apart from the others of its family, such as {"sign": "positive", "baseline": "blur"}."""


@dataclass(frozen=True)
class MetricFamily:
    """The family of a metric: the entry of `evaluation.metrics` that gave it, perhaps with others, and its place there.

    `title` and `meaning` are for the reader of a report. The meaning is a sentence or two, true for the options of this
    run. `table`, `section` and `row` say where a report shows the metric: metrics with the same `table` share a small
    table, those with the same `section` share a section of a large one. `row` is the metric's name there; if it is
    empty, the title is used.
    """

    name: str
    title: str = ""
    meaning: str = ""
    table: str = ""
    section: str = ""
    row: str = ""


@dataclass(frozen=True)
class MetricRecord:
    """One metric of one run.

    `value` is the mean over the `num_counted` images, in `unit`; `low` and `high` bound its 95 % bootstrap
    interval (NaN when there are fewer than two images). `num_skipped` images had no value, for the reason
    `skip_reason`.
    """

    name: str
    title: str
    value: float
    low: float
    high: float
    num_counted: int
    num_skipped: int
    skip_reason: str
    unit: str
    higher_is_better: bool | None
    """None where neither is better, as for a value that others are compared with."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """The choices behind the number that could have been made differently."""
    family: MetricFamily = MetricFamily("")
    dims: Dims = field(default_factory=dict)
    per_image: PerImage = "values"


@dataclass(frozen=True)
class Profile:
    """A curve that a metric measured: `lines` by name, each `[(x, mean over images, low, high), ...]`.

    `low` and `high` are the ends of the 95 % interval. The chart `reliability` draws accuracy over confidence, with the
    diagonal that a calibrated network follows.
    """

    name: str
    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]]
    chart: Literal["curve", "reliability"] = "curve"


@dataclass(frozen=True)
class Scatter:
    """Points in a plane, such as an embedding by t-SNE: `[(x, y, class, kind), ...]`, class and kind as words."""

    name: str
    title: str
    points: Sequence[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Record:
    """An evaluation: what was measured, on which data, how, and with which result."""

    name: str
    created: str
    command: str
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    seed: int
    dataset: Mapping[str, Any]
    classes: Sequence[str]
    metrics: Sequence[MetricRecord]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Training curves: name -> [(epoch, value), ...]."""
    profiles: Sequence[Profile] = ()
    scatters: Sequence[Scatter] = ()
    skipped_images: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION

    def metric(self, name: str) -> MetricRecord | None:
        """The metric called `name`, or None when the run did not measure it."""
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True, eq=False)
class Samples:
    """The columns of N images: path, label, prediction with its probability, and the values of each metric.

    `values` are float64 [N] by the metric's name, NaN where an image was skipped.
    """

    paths: Sequence[str] = ()
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    predictions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    probabilities: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def __eq__(self, other: object) -> bool:
        """Whether everything is equal, to the last bit. NaN is equal to NaN."""
        if not isinstance(other, Samples):
            return NotImplemented
        columns = (self.labels, other.labels), (self.predictions, other.predictions)
        numbers = [
            (self.probabilities, other.probabilities),
            *zip(self.values.values(), other.values.values(), strict=False),
        ]
        return (
            list(self.paths) == list(other.paths)
            and list(self.values) == list(other.values)
            and all(np.array_equal(*pair) for pair in columns)
            and all(np.array_equal(*pair, equal_nan=True) for pair in numbers)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Gallery:
    """The G pictures that a report shows, the same for every run on one data set.

    `images[i]` is uint8 [H,W,3]; `heatmaps[i]` is the raw signed map, float32 [h,w], of the *label*'s class over the
    same field of view (h, w at layer size); `boxes[i]` is float32 [M,4], xyxy in pixels of `images[i]`, M may be 0.
    `paths`, `labels`, `predictions`, `probabilities` (of the prediction) go with them.

    `predicted_heatmaps` has the map of the *predicted* class, by the position of each image that is classified wrongly.
    Records made before there were such maps have none.

    `answers` have what the explorer's page needs to ask an image anything, by its position: as JSON, with the maps of a
    few classes and the logits of all (`contrex.evaluation.explored`). Older records have none.
    """

    images: Sequence[NDArray[np.uint8]]
    heatmaps: Sequence[NDArray[np.float32]]
    boxes: Sequence[NDArray[np.float32]]
    paths: Sequence[str]
    labels: Sequence[int]
    predictions: Sequence[int]
    probabilities: Sequence[float]
    predicted_heatmaps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    answers: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """A record with the files beside it."""

    record: Record
    samples: Samples
    gallery: Gallery | None
    sheets: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by title."""
