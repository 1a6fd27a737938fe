"""The protocol: how one entry of `evaluation.metrics` is measured, and what its numbers mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from contrex import settings
from contrex.errors import ArgumentError
from contrex.evaluation.bench import Bench, Group
from contrex.metrics import PerSampleMetric
from contrex.records import Dims, MetricFamily, MetricRecord, Profile, Scatter

M = TypeVar("M", bound=PerSampleMetric)


class Protocol(ABC):
    """Show groups of images to one metric or a few, and say which choices were made in doing so.

    A subclass has a name, a title and a docstring whose first line says what it measures. It sets `metrics` in
    `__init__`, and its `judge` updates each of them with one value per image. `Group` has what can be asked of a group;
    several protocols share it, and what it computes is computed once.
    """

    name: ClassVar[str]
    """The entry of `evaluation.metrics`, and the name of the family of its metrics in a record."""
    title: ClassVar[str]
    """The title of the family in a report."""
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
    """Whether it does without the explainer; it is then measured once for several explainers."""

    metrics: Sequence[PerSampleMetric] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._placed: dict[str, tuple[Dims, Mapping[str, str]]] = {}

    @abstractmethod
    def judge(self, group: Group) -> Sequence[int]:
        """Update each metric with one value per image, and return the images' indices in the order of those values."""

    @classmethod  # noqa: B027 - most have nothing to refuse
    def check_options(cls, options: settings.Evaluation) -> None:
        """Refuse options with which there is nothing to measure, with an `ArgumentError`: before anything is read."""

    @classmethod
    def check_classes(cls, name: str, options: settings.Evaluation, num_classes: int) -> None:
        """Refuse too few classes, with an `ArgumentError`; `name` is the entry of `evaluation.metrics`."""
        if num_classes < cls.min_classes:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which needs at least {cls.min_classes} classes; there are "
                f"{num_classes}: leave it out."
            )

    def finish(self) -> Sequence[int]:
        """Measure what needs all images to be known, and return indices as `judge` does: of images of this process.

        A sync point: all processes must call it, once, after their last group."""
        return ()

    def meaning(self) -> str:
        """A sentence or two on what the numbers say, true for the options at hand."""
        return (type(self).__doc__ or "").partition("\n")[0]

    def details(self) -> dict[str, Any]:
        """The choices behind the numbers that could have been made differently, for the record."""
        return {}

    def profiles(self) -> Sequence[Profile]:
        """Curves that belong to the numbers, averaged over the images. A sync point: all processes must call it."""
        return ()

    def scatters(self) -> Sequence[Scatter]:
        """Points in a plane for a person to look at. A sync point: all processes must call it."""
        return ()

    def placed(self, metric: M, dims: Dims, **place: str) -> M:
        """Note what sets `metric` apart from the others of the family, and return it.

        `dims` say it for programs; `place` is its `table`, `section` or `row` in words
        (`contrex.records.MetricFamily`).
        """
        self._placed[metric.name] = dims, place
        return metric

    def records(self, more: Mapping[str, Any]) -> list[MetricRecord]:
        """The entries of the metrics in a record; `more` is added to the details.

        A sync point: all processes must call it.
        """
        options, details = self.bench.options, {**self.details(), **more}
        family = MetricFamily(self.name, self.title, self.meaning())
        entries = []
        for metric in self.metrics:
            dims, place = self._placed.get(metric.name, (metric.dims, {}))
            record = metric.record(options.num_bootstrap, options.seed, protocol=details)
            own = replace(family, **place)
            entries.append(replace(record, family=own, dims=dict(dims), per_image=metric.per_image))
        return entries
