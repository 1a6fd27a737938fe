"""What one name in `evaluation.metrics` stands for: metrics, the images they are shown, and what the numbers mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from contrex.evaluation.bench import Bench, Group
from contrex.metrics import PerSampleMetric
from contrex.records import Dims, MetricFamily, MetricRecord, Profile, Scatter

M = TypeVar("M", bound=PerSampleMetric)


class Protocol(ABC):
    """Shows groups of images to one metric or a few, and says what it chose in doing so.

    A subclass has a name, a title and a docstring whose first line says what it measures, sets `metrics` in `__init__`
    and writes `judge`, which updates each of them with one value per image. What a group offers, see `Group`; several
    protocols share it.
    """

    name: ClassVar[str]
    """What `evaluation.metrics` calls it, and the family of its metrics in a record."""
    title: ClassVar[str]
    """What a report calls the family."""
    min_classes: ClassVar[int] = 1
    """How many classes a classifier must have for the numbers to mean something."""
    unfit: ClassVar[Mapping[str, str]] = {}
    """The tasks (`evaluation.task`) whose classifiers it cannot judge, each with the reason."""
    needs_heatmaps: ClassVar[bool] = False
    """Whether it uses the explanation of the squares."""
    needs_features: ClassVar[bool] = False
    """Whether it uses the features of the squares."""
    needs_whole: ClassVar[bool] = False
    """Whether it uses the whole images."""
    judges_classifier_only: ClassVar[bool] = False
    """Whether it uses nothing of the explainer: for several explainers it is measured once."""

    metrics: Sequence[PerSampleMetric] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._placed: dict[str, tuple[Dims, Mapping[str, str]]] = {}

    @abstractmethod
    def judge(self, group: Group) -> Sequence[int]:
        """Update each metric with one value per image; the images' indices in the order of those values."""

    def meaning(self) -> str:
        """What the numbers say, in a sentence or two that are true of these very options."""
        return (type(self).__doc__ or "").partition("\n")[0]

    def details(self) -> dict[str, Any]:
        """The choices behind the numbers that another protocol could make differently."""
        return {}

    def profiles(self) -> Sequence[Profile]:
        """Curves that belong to the numbers, averaged over the images; with several processes all must call it."""
        return ()

    def scatters(self) -> Sequence[Scatter]:
        """Points in a plane for a person to look at; with several processes all must call it."""
        return ()

    def placed(self, metric: M, dims: Dims, **place: str) -> M:
        """Say what sets `metric` apart from the others: `dims` for programs, and its `table`, `section` or `row` in
        words (`contrex.records.MetricFamily`)."""
        self._placed[metric.name] = dims, place
        return metric

    def records(self, more: Mapping[str, Any]) -> list[MetricRecord]:
        """The entries of its metrics in a record; `more` joins the details. With several processes all must call it."""
        options, details = self.bench.options, {**self.details(), **more}
        family = MetricFamily(self.name, self.title, self.meaning())
        found = []
        for metric in self.metrics:
            dims, place = self._placed.get(metric.name, (metric.dims, {}))
            record = metric.record(options.num_bootstrap, options.seed, protocol=details)
            own = replace(family, **place)
            found.append(replace(record, family=own, dims=dict(dims), per_image=metric.per_image))
        return found
