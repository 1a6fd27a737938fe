"""The evaluation: all protocols over a data set, and the record of what they measured."""

from __future__ import annotations

import copy
import datetime
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from contrex import ranks, settings
from contrex.data.loading import Loader
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews, Views
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import consistency
from contrex.evaluation.bench import Bench, Group, ShownPicture, of_an_image
from contrex.evaluation.chosen import chosen, chosen_in_words
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.protocols import check_names, protocol_named
from contrex.evaluation.subject import Subject, command_line, configuration_of, versions
from contrex.losses import distillation_loss
from contrex.metrics import top_k_correct
from contrex.models import Classifier, eval_mode, model_logits
from contrex.ops import scores
from contrex.records import Gallery, Record, RunRecord, Samples

GROUP = consistency.BATCH
"""Images judged together."""

PUBLISHED_SHORT_SIDE = 448
"""Shorter side of the whole image, in pixels, in the published content-heatmap protocol."""


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything that `options.metrics` names, with one explainer, and return the record.

    `progress(done, total)` is called after each group of images. With several processes (`contrex.ranks`) each judges
    its share of the groups, none twice, and all return the record that one process would have written.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the split is empty, or its classes are not the classifier's.
        ArgumentError: a box or a heatmap cannot be judged (the message names the image), the classifier has too few
            classes for a metric or takes squares only, or the options name several explainers.
    """
    if len(options.of_each_explainer()) > 1:
        raise ArgumentError(
            f"`evaluation.explainers` names {len(options.explainers)} explainers, and this gives one record: call "
            "evaluate_each, which gives one for each."
        )
    return evaluate_each(subject, options, progress=progress)[0]


def evaluate_each(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> list[RunRecord]:
    """Measure with each of `options.explainers`, and return a record for each.

    Each record equals, to the last bit, the one that `evaluate` gives for that explainer alone. Images are read once,
    and what needs no explainer is measured once. `progress` and errors are as in `evaluate`.
    """
    check_names(options)
    indices = chosen(subject.images, options)
    total = len(indices)
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    own, *ways = options.of_each_explainer()
    first = Panel(subject, own)
    others = [Panel(subject, way, beside=first) for way in ways]
    num_shown = min(options.gallery, total) if first.wants_maps else 0  # pictures are shown with their heatmap
    gallery = {indices[place] for place in np.linspace(0, total - 1, num_shown).round().astype(int).tolist()}
    sizes = view_sizes(subject.data)
    whole_sides = {"native": sizes[1], "published": PUBLISHED_SHORT_SIDE, "square": None}
    views = EvaluationViews(
        subject.images,
        sizes,
        whole_side=whole_sides[options.content_heatmap_protocol],
        needs_whole=first.needs_whole,
        gallery=gallery,
    )
    done = 0
    with closing(Groups(views, indices, workers=options.workers)) as groups:
        for group in groups:
            _judge_by_each(first, others, group)
            done = min(done + ranks.world_size() * GROUP, total)
            if progress is not None:
                progress(done, total)
    records = [panel.record(total) for panel in (first, *others)]
    return ranks.from_first(lambda: records)  # a sync point: all return the records of the first process, bit by bit


def _judge_by_each(first: Panel, others: Sequence[Panel], views: Sequence[Views]) -> None:
    """Judge a group of images by several explainers, each with the logits of its own forward passes."""
    group = first.group(views)
    groups = [panel.group(views, beside=group) for panel in others]
    for panel, own in zip(others, groups, strict=True):
        # Passes of different explainers mostly have the same logits, but kernels differ with what autograd records.
        # From the first group on where one bit does, the panel judges the classifier by itself.
        if not torch.equal(own.logits, group.logits):
            panel.part_from(first)
    first.judge(group)
    for panel, own in zip(others, groups, strict=True):
        panel.judge(own)


class Validation(NamedTuple):
    """Top-1 accuracy in % and the mean cross-entropy in nats, over all images; with a reference, the agreement with it
    and the divergence from it, and `kept`, how many of its `num_sure` sure decisions are the same, in %.

    Where the reference is sure of none, all count.
    """

    top1: float
    loss: float
    kept: float = 100.0
    num_sure: int = 0


def validation_groups(images: ImageSet, data: settings.Data, *, workers: int = 0) -> Groups:
    """The squares of `images` in groups, which `validate` may read again and again.

    Raises:
        DataError: there are no images.
    """
    if len(images) == 0:
        raise DataError(f"{images.name} has no images, so there is no accuracy: give it at least one.")
    views = EvaluationViews(images, view_sizes(data), whole_side=None, needs_whole=False, gallery=())
    return Groups(views, range(len(images)), workers=workers, size=4 * GROUP)


def validate(
    classifier: Classifier,
    groups: Groups,
    *,
    device: torch.device,
    reference: nn.Module | None = None,
    sure: float = 0.5,
) -> Validation:
    """Accuracy and cross-entropy on the squares, in eval mode. The network's mode is restored.

    With a `reference`, a network in eval mode, no labels are read: its predictions stand in for them, and in place of
    the cross-entropy is the divergence of the classifier's probabilities from its own, `mean KL(reference || network)`.
    Where its probability is at least `sure`, the prediction is one that should be kept.

    A sync point: all processes must call it.
    """
    network, correct, num_sure, kept = classifier.network, 0, 0, 0
    losses: list[float] = []
    with eval_mode(network), torch.inference_mode():
        for group in groups:
            images = classifier.normalise(torch.stack([views.square for views in group]).to(device))
            logits = model_logits(network, images).float()
            if reference is None:
                labels = torch.tensor([views.label for views in group], device=device)
                # Summed in float64, group by group, so that processes add up what one process would. `float` waits for
                # the device.
                losses.append(float(-scores.log_probability(logits.double(), labels).sum()))
            else:
                theirs = model_logits(reference, images).float()
                labels = theirs.argmax(1)
                losses.append(len(group) * float(distillation_loss(logits.double(), theirs.double())))
                is_sure = theirs.softmax(1).amax(1) >= sure
                num_sure += int(is_sure.sum())
                kept += int(top_k_correct(logits[is_sure], labels[is_sure], 1).sum()) if is_sure.any() else 0
            correct += int(top_k_correct(logits, labels, 1).sum())
    loss = sum(itertools.chain.from_iterable(ranks.gathered(losses)))  # in the order of the images, as one process adds
    top1 = 100 * sum(ranks.gathered(correct)) / groups.total
    if reference is None:
        return Validation(top1, loss / groups.total)
    num_sure, kept = sum(ranks.gathered(num_sure)), sum(ranks.gathered(kept))
    return Validation(top1, loss / groups.total, 100 * kept / num_sure if num_sure else top1, num_sure)


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
            self._shown |= {shown.index: shown for shown in group.pictures(prediction)}

    def record(self, total: int) -> RunRecord:
        """The record of all that was measured, equal on every process. A sync point: all processes must call it."""
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
        pictures = {index: shown for part in ranks.gathered(self._shown) for index, shown in part.items()}
        if not pictures:
            return None
        shown = [pictures[index] for index in sorted(pictures)]
        kept = [rows[index] for index in sorted(pictures)]
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


class Groups:
    """This process' share of the groups of `size` images, those at `indices`. The last group may be smaller.

    The shares follow each other in the order of the processes. Joined, their values are in the order of the images and
    add up to the same number, bit for bit, as in one process. The loader's workers stay between two rounds.
    """

    def __init__(self, views: EvaluationViews, indices: Sequence[int], *, workers: int, size: int = GROUP) -> None:
        self.total = len(indices)
        self.has_labels = views.images.has_labels
        self._size, self._indices = size, indices
        self._loader: Loader[list[Views]] = Loader(views, list, workers=workers)

    def __iter__(self) -> Iterator[list[Views]]:
        total, size = self.total, self._size
        positions = [list(self._indices[start : start + size]) for start in range(0, total, size)]
        first, last = (
            math.ceil(len(positions) * number / ranks.world_size()) for number in (ranks.rank(), ranks.rank() + 1)
        )
        return self._loader.read(positions[first:last])

    def close(self) -> None:
        """End the loader's workers."""
        self._loader.close()


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
