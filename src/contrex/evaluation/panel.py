"""All protocols of one explainer: what they measure of each image, and the record that it becomes."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from contrex import ranks, settings
from contrex.data.views.evaluation import Views
from contrex.errors import ArgumentError, DataError
from contrex.evaluation.bench import Bench, Group, of_an_image
from contrex.evaluation.chosen import chosen_in_words
from contrex.evaluation.pictures import ShownPicture, pictures
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.protocols import check_names, protocol_named
from contrex.evaluation.subject import Subject, command_line, configuration_of, versions
from contrex.ops import scores
from contrex.records import Gallery, Record, RunRecord, Samples


@dataclass
class ImageRow:
    """One image: its path and label, what the classifier predicts, and the values of the metrics by name."""

    path: str
    label: int
    prediction: int
    probability: float
    values: dict[str, float] = field(default_factory=dict)


class Panel:
    """All protocols of one explainer, with the rows that they fill and the pictures that are kept.

    `beside` is the panel of the first explainer. What needs no explainer is measured there, for both.
    """

    def __init__(self, subject: Subject, options: settings.Evaluation, *, beside: Panel | None = None) -> None:
        self.subject = subject
        self.options = options
        self.bench = Bench(subject, options)
        self._shared = {} if beside is None else beside.of_classifier()
        """The protocols that `beside` runs for both panels, by name."""
        self.protocols: dict[str, Protocol] = {
            name: self._shared.get(name) or protocol_named(name)(self.bench) for name in options.metrics
        }
        _check_apart(self.protocols)
        self.needs_heatmaps = any(protocol.needs_heatmaps for protocol in self.protocols.values())
        self.needs_features = any(protocol.needs_features for protocol in self.protocols.values())
        self.needs_whole = any(protocol.needs_whole for protocol in self.protocols.values())
        self.task: str | None = None
        """What the classifier's logits are, known once it has given some."""
        self._order: dict[str, list[int]] = {
            name: beside._order[name] if beside is not None and name in self._shared else [] for name in options.metrics
        }
        self._rows: dict[int, ImageRow] = {}
        self._shown: dict[int, ShownPicture] = {}

    @property
    def wants_maps(self) -> bool:
        """Whether any protocol needs heatmaps."""
        return self.needs_heatmaps or self.needs_whole

    def of_classifier(self) -> dict[str, Protocol]:
        """The protocols that judge the classifier only."""
        return {name: protocol for name, protocol in self.protocols.items() if protocol.judges_classifier_only}

    def group(self, views: Sequence[Views], *, beside: Group | None = None) -> Group:
        """The group of `views`; `beside` is the group of the same images for another explainer.

        Raises:
            DataError: an image has no label.
        """
        unlabelled = [view.path for view in views if view.label < 0]
        if unlabelled:
            raise DataError(f"{unlabelled[0]} has no label, and an evaluation needs one for each image: leave it out.")
        has = {"has_heatmaps": self.needs_heatmaps, "has_features": self.needs_features}
        return Group(self.bench, views, **has, beside=beside)

    def part_from(self, beside: Panel) -> None:
        """Measure everything here from now on, starting from copies of what `beside` has measured for both."""
        for name in self._shared:
            # deepcopy looks objects up here by `id`. The bench stands for its own copy, so that the network is not
            # copied and the other explainer is not used on.
            known = {id(beside.bench): self.bench}
            self.protocols[name] = copy.deepcopy(beside.protocols[name], known)
            self._order[name] = list(beside._order[name])
        self._shared = {}

    def judge(self, group: Group) -> None:
        """Measure everything about one group of images."""
        views = group.views
        if self.task is None:
            self.task = self._checked_task(group.logits)
        prediction = scores.predicted(group.logits, self.task)
        probability = scores.probability(group.logits, prediction, self.task)
        for position, view in enumerate(views):
            self._rows[view.index] = ImageRow(
                view.path, int(group.labels[position]), int(prediction[position]), float(probability[position])
            )
        for name, protocol in self.protocols.items():
            if name not in self._shared:
                self._order[name] += _judged(protocol, group)
        if self.wants_maps:
            self._shown |= {shown.index: shown for shown in pictures(group, prediction)}

    def record(self, total: int) -> RunRecord:
        """The record of all that was measured, equal on every process. A sync point: all processes must call it, and
        once, as protocols first measure what needs all images to be known."""
        for name, protocol in self.protocols.items():
            if name not in self._shared:
                self._order[name] += protocol.finish()
        subject, options, protocols = self.subject, self.options, self.protocols.values()
        self.task = next(filter(None, ranks.gathered(self.task)), None)  # a process may have no images
        record = Record(
            name=subject.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command_line(),
            configuration=configuration_of(subject, options),
            versions=versions(),
            seed=subject.seed,
            dataset={
                "name": subject.images.name,
                "split": options.split,
                "num_images": total,
                **chosen_in_words(subject.images, options),
                **subject.images.details,
            },
            classes=list(subject.images.classes),
            metrics=[record for protocol in protocols for record in protocol.records(self._task_detail())],
            profiles=[profile for protocol in protocols for profile in protocol.profiles()],
            scatters=[scatter for protocol in protocols for scatter in protocol.scatters()],
            curves=subject.curves,
            skipped_images=list(subject.images.skipped),
        )
        rows = self._all_rows()
        return RunRecord(record, self._samples(rows), self._gallery(rows), subject.sheets)

    def _all_rows(self) -> dict[int, ImageRow]:
        """The rows of all processes by the index of their image."""
        for name, protocol in self.protocols.items():
            for metric in protocol.metrics:
                for index, value in zip(self._order[name], metric.own_values().tolist(), strict=True):
                    self._rows[index].values[metric.name] = value
        return {index: row for rows in ranks.gathered(self._rows) for index, row in rows.items()}

    def _samples(self, rows: Mapping[int, ImageRow]) -> Samples:
        """The rows as columns, in the order of the images."""
        ordered = [rows[index] for index in sorted(rows)]
        names = [metric.name for protocol in self.protocols.values() for metric in protocol.metrics]
        return Samples(
            paths=[row.path for row in ordered],
            labels=np.array([row.label for row in ordered], np.int64),
            predictions=np.array([row.prediction for row in ordered], np.int64),
            probabilities=np.array([row.probability for row in ordered], np.float64),
            values={name: np.array([row.values[name] for row in ordered], np.float64) for name in names},
        )

    def _gallery(self, rows: Mapping[int, ImageRow]) -> Gallery | None:
        """The pictures kept for a report."""
        gathered = {index: shown for part in ranks.gathered(self._shown) for index, shown in part.items()}
        if not gathered:
            return None
        shown = [gathered[index] for index in sorted(gathered)]
        kept = [rows[index] for index in sorted(gathered)]
        return Gallery(
            images=[one.picture.pixels for one in shown],
            heatmaps=[one.heatmap for one in shown],
            boxes=[one.picture.boxes for one in shown],
            paths=[row.path for row in kept],
            labels=[row.label for row in kept],
            predictions=[row.prediction for row in kept],
            probabilities=[row.probability for row in kept],
            predicted_heatmaps={place: one.predicted for place, one in enumerate(shown) if one.predicted is not None},
            answers={place: one.answer for place, one in enumerate(shown) if one.answer},
        )

    def _task_detail(self) -> dict[str, Any]:
        """The task as a detail of every metric, unless it is multiclass."""
        return {} if self.task in (None, "multiclass") else {"task": self.task}

    def _checked_task(self, logits: Tensor) -> str:
        """The task of `logits`, after a check that the data set's classes are the classifier's.

        Labels are positions among the classes, so they mean nothing to a classifier of other classes.
        """
        images, task = self.subject.images, scores.task_of(logits, self.options.task)
        num_classes = scores.class_logits(logits, task).shape[1]
        if len(images.classes) != num_classes:
            raise DataError(
                f"{images.name} has {len(images.classes)} classes, the classifier {num_classes}, so its labels would "
                f"be read as other classes: give the folder a labels.csv with the classifier's class indices and a "
                f"classes.txt with its {num_classes} names, or evaluate a classifier of these {len(images.classes)}."
            )
        check_names(self.options, num_classes, task)
        return task


def _check_apart(protocols: Mapping[str, Protocol]) -> None:
    """Refuse two metrics with one name: a record could not tell them apart."""
    owners: dict[str, str] = {}
    for entry, protocol in protocols.items():
        for metric in protocol.metrics:
            if metric.name in owners:
                raise ArgumentError(
                    f"`evaluation.metrics` has {metric.name!r} twice, by {owners[metric.name]} and {entry}: give the "
                    "metric another name."
                )
            owners[metric.name] = entry


def _judged(protocol: Protocol, group: Group) -> Sequence[int]:
    try:
        return protocol.judge(group)
    except ArgumentError as error:
        fresh = type(protocol)(protocol.bench)
        raise of_an_image(error, group.views, lambda position: fresh.judge(group.alone(position))) from None
