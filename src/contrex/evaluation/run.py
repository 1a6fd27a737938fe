"""Measuring everything a run asks for over a data set, and writing down what came out."""

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
from numpy.typing import NDArray
from torch import Tensor, nn

from contrex import ranks, settings
from contrex.data.loading import Loader
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews, Picture, Views
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import consistency
from contrex.evaluation.bench import Bench, Group, of_an_image
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
"""Shorter side of the whole image in the published content-heatmap protocol."""


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything `options.metrics` names, with one explainer, and keep a row per image.

    `progress(done, total)` is called after each group of images. With several processes (`contrex.ranks`) each judges
    its share of the groups, none twice, and all return the record that one process would have written.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the split is empty, or its classes are not the classifier's.
        ArgumentError: a box or a heatmap cannot be judged (the message names the image), or the classifier has too few
            classes for a metric, or it takes squares only; or the options name several explainers.
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
    """Measure with each of `options.explainers` and return a record for each, equal to the one that `evaluate` gives
    for that explainer alone, to the last bit.

    Images are read once for all, and what needs no explainer is measured once. `progress` and errors as in `evaluate`.
    """
    check_names(options)
    total = min(len(subject.images), options.limit or len(subject.images))
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    own, *ways = options.of_each_explainer()
    first = Panel(subject, own)
    others = [Panel(subject, way, beside=first) for way in ways]
    num_shown = min(options.gallery, total) if first.wants_maps else 0  # pictures are shown with their heatmap
    gallery = set(np.linspace(0, total - 1, num_shown).round().astype(int).tolist())
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
    with closing(Groups(views, total, workers=options.workers)) as groups:
        for group in groups:
            _judge_by_each(first, others, group)
            done = min(done + ranks.world_size() * GROUP, total)
            if progress is not None:
                progress(done, total)
    records = [panel.record(total) for panel in (first, *others)]
    return ranks.from_first(lambda: records)


def _judge_by_each(first: Panel, others: Sequence[Panel], views: Sequence[Views]) -> None:
    """Judge a group of images with several explainers, each on the logits of its own passes."""
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
    """Top-1 accuracy in % and the mean cross-entropy in nats, over all images; of images without labels, the agreement
    with a reference and the divergence from it."""

    top1: float
    loss: float


def validation_groups(images: ImageSet, data: settings.Data, *, workers: int = 0) -> Groups:
    """The square views of `images`, for `validate` to see as often as it is called.

    Raises:
        DataError: there are no images.
    """
    if len(images) == 0:
        raise DataError(f"{images.name} has no images, so there is no accuracy: give it at least one.")
    views = EvaluationViews(images, view_sizes(data), whole_side=None, needs_whole=False, gallery=())
    return Groups(views, len(images), workers=workers, size=4 * GROUP)


def validate(
    classifier: Classifier, groups: Groups, *, device: torch.device, reference: nn.Module | None = None
) -> Validation:
    """Accuracy and cross-entropy on the square views, in eval mode; the network's mode is restored.

    With a `reference`, a network in eval mode, no labels are read: its predictions stand in for them, and in place of
    the cross-entropy is the divergence of the classifier's probabilities from its own, `mean KL(reference || network)`.
    """
    network, correct = classifier.network, 0
    losses: list[float] = []
    with eval_mode(network), torch.inference_mode():
        for group in groups:
            images = classifier.normalise(torch.stack([views.square for views in group]).to(device))
            logits = model_logits(network, images).float()
            if reference is None:
                labels = torch.tensor([views.label for views in group], device=device)
                losses.append(float(-scores.log_probability(logits.double(), labels).sum()))
            else:
                theirs = model_logits(reference, images).float()
                labels = theirs.argmax(1)
                losses.append(len(group) * float(distillation_loss(logits.double(), theirs.double())))
            correct += int(top_k_correct(logits, labels, 1).sum())
    loss = sum(itertools.chain.from_iterable(ranks.gathered(losses)))  # in the order of the images, as one process adds
    return Validation(100 * sum(ranks.gathered(correct)) / groups.total, loss / groups.total)


@dataclass
class ImageRow:
    """What is known of one image: itself, what the classifier says, and its values of the metrics by name."""

    path: str
    label: int
    prediction: int
    probability: float
    values: dict[str, float] = field(default_factory=dict)


class Panel:
    """The protocols that judge one subject, the rows they fill and the pictures that are kept."""

    def __init__(self, subject: Subject, options: settings.Evaluation, *, beside: Panel | None = None) -> None:
        self.subject = subject
        self.options = options
        self.bench = Bench(subject, options)
        self._shared = {} if beside is None else beside.of_classifier()
        """What the panel beside this one measures for both, as it needs no explainer."""
        self.protocols: dict[str, Protocol] = {
            name: self._shared.get(name) or protocol_named(name)(self.bench) for name in options.metrics
        }
        _check_apart(self.protocols)
        self.needs_heatmaps = any(protocol.needs_heatmaps for protocol in self.protocols.values())
        self.needs_features = any(protocol.needs_features for protocol in self.protocols.values())
        self.needs_whole = any(protocol.needs_whole for protocol in self.protocols.values())
        self.task: str | None = None
        """What the classifier's logits are, once it has given some."""
        self._order: dict[str, list[int]] = {
            name: beside._order[name] if beside is not None and name in self._shared else [] for name in options.metrics
        }
        self._rows: dict[int, ImageRow] = {}
        self._shown: dict[int, tuple[Picture, NDArray[np.float32]]] = {}

    @property
    def wants_maps(self) -> bool:
        """Whether any protocol judges heatmaps."""
        return self.needs_heatmaps or self.needs_whole

    def of_classifier(self) -> dict[str, Protocol]:
        """The protocols that judge the classifier only."""
        return {name: protocol for name, protocol in self.protocols.items() if protocol.judges_classifier_only}

    def group(self, views: Sequence[Views], *, beside: Group | None = None) -> Group:
        """Images to judge together; `beside` has the same ones for another explainer.

        Raises:
            DataError: one has no label.
        """
        unlabelled = [view.path for view in views if view.label < 0]
        if unlabelled:
            raise DataError(f"{unlabelled[0]} has no label, and an evaluation needs one for each image: leave it out.")
        has = {"has_heatmaps": self.needs_heatmaps, "has_features": self.needs_features}
        return Group(self.bench, views, **has, beside=beside)

    def part_from(self, beside: Panel) -> None:
        """Measure everything by itself from now on, going on with what was measured for both."""
        for name in self._shared:
            known = {id(beside.bench): self.bench}  # the network must not be copied, nor the other's explainer kept
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
            self._shown |= {index: (picture, values) for index, picture, values in group.pictures()}

    def record(self, total: int) -> RunRecord:
        """What came out, the same on every process."""
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
        """A row per image of every process."""
        for name, protocol in self.protocols.items():
            for metric in protocol.metrics:
                for index, value in zip(self._order[name], metric.own_values().tolist(), strict=True):
                    self._rows[index].values[metric.name] = value
        return {index: row for rows in ranks.gathered(self._rows) for index, row in rows.items()}

    def _samples(self, rows: Mapping[int, ImageRow]) -> Samples:
        """The rows in the order of the images, as columns."""
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
        found = {index: pair for part in ranks.gathered(self._shown) for index, pair in part.items()}
        if not found:
            return None
        shown = [found[index] for index in sorted(found)]
        kept = [rows[index] for index in sorted(found)]
        return Gallery(
            images=[picture.pixels for picture, _ in shown],
            heatmaps=[values for _, values in shown],
            boxes=[picture.boxes for picture, _ in shown],
            paths=[row.path for row in kept],
            labels=[row.label for row in kept],
            predictions=[row.prediction for row in kept],
            probabilities=[row.probability for row in kept],
        )

    def _task_detail(self) -> dict[str, Any]:
        """The task as a choice behind the numbers, where it is not the usual one, named or not in the options."""
        return {} if self.task in (None, "multiclass") else {"task": self.task}

    def _checked_task(self, logits: Tensor) -> str:
        """What the logits are. Labels are positions among the classes: they mean nothing to a classifier of others."""
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
    """This process' share of the groups of `size` images, from the same workers each time; the last group may be
    smaller.

    Shares follow each other in the order of the processes, so what they give, joined, is in the order of the images and
    adds up to the same number, bit for bit, as in one process.
    """

    def __init__(self, views: EvaluationViews, total: int, *, workers: int, size: int = GROUP) -> None:
        self.total = total
        self.has_labels = views.images.has_labels
        self._size = size
        self._loader: Loader[list[Views]] = Loader(views, list, workers=workers)

    def __iter__(self) -> Iterator[list[Views]]:
        total, size = self.total, self._size
        positions = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
        first, last = (
            math.ceil(len(positions) * number / ranks.world_size()) for number in (ranks.rank(), ranks.rank() + 1)
        )
        return self._loader.read(positions[first:last])

    def close(self) -> None:
        """End the workers."""
        self._loader.close()


def _check_apart(protocols: Mapping[str, Protocol]) -> None:
    """Refuse two metrics of one name, which a record could not tell apart."""
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
