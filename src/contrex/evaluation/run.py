"""Measuring everything a run asks for over a data set, and writing down what came out."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex import ranks, settings
from contrex.data.loading import Loader
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews, Picture, Views
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError
from contrex.evaluation import consistency
from contrex.evaluation.bench import Bench, Group, of_an_image
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.protocols import PROTOCOLS, check_names
from contrex.evaluation.subject import Subject, command_line, configuration_of, versions
from contrex.metrics import top_k_correct
from contrex.models import Classifier, eval_mode, model_logits
from contrex.ops import scores
from contrex.records import Gallery, Record, RunRecord

GROUP = consistency.BATCH
"""Images judged together."""

PUBLISHED_SHORT_SIDE = 448
"""Shorter side of the whole image in the published content-heatmap protocol."""


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything `options.metrics` names and keep a row per image.

    `progress(done, total)` is called after each group of images. With several processes (`contrex.ranks`) each judges
    its share of the groups, none twice, and all return the record that one process would have written.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the split is empty, or its classes are not the classifier's.
        ArgumentError: a box or a heatmap cannot be judged (the message names the image), or the classifier has too few
            classes for a metric, or it takes squares only.
    """
    check_names(options)
    total = min(len(subject.images), options.limit or len(subject.images))
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    panel = Panel(subject, options)
    num_shown = min(options.gallery, total) if panel.wants_maps else 0  # pictures are shown with their heatmap
    gallery = set(np.linspace(0, total - 1, num_shown).round().astype(int).tolist())
    sizes = view_sizes(subject.data)
    whole_sides = {"native": sizes[1], "published": PUBLISHED_SHORT_SIDE, "square": None}
    views = EvaluationViews(
        subject.images,
        sizes,
        whole_side=whole_sides[options.content_heatmap_protocol],
        needs_whole=panel.needs_whole,
        gallery=gallery,
    )
    done = 0
    with closing(Groups(views, total, workers=options.workers)) as groups:
        for group in groups:
            panel.judge(group)
            done = min(done + ranks.world_size() * GROUP, total)
            if progress is not None:
                progress(done, total)
    record = panel.record(total)
    return ranks.from_first(lambda: record)


class Validation(NamedTuple):
    """Top-1 accuracy in % and the mean cross-entropy in nats, over all images."""

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


def validate(classifier: Classifier, groups: Groups, *, device: torch.device) -> Validation:
    """Accuracy and cross-entropy on the square views, in eval mode; the network's mode is restored."""
    network, correct = classifier.network, 0
    losses: list[float] = []
    with eval_mode(network), torch.inference_mode():
        for group in groups:
            squares = torch.stack([views.square for views in group])
            logits = model_logits(network, classifier.normalise(squares.to(device))).float()
            labels = torch.tensor([views.label for views in group], device=device)
            correct += int(top_k_correct(logits, labels, 1).sum())
            losses.append(float(-scores.log_probability(logits.double(), labels).sum()))
    loss = sum(itertools.chain.from_iterable(ranks.gathered(losses)))  # in the order of the images, as one process adds
    return Validation(100 * sum(ranks.gathered(correct)) / groups.total, loss / groups.total)


class Panel:
    """The protocols that judge one subject, the rows they fill and the pictures that are kept."""

    def __init__(self, subject: Subject, options: settings.Evaluation) -> None:
        self.subject = subject
        self.options = options
        self.bench = Bench(subject, options)
        self.protocols: dict[str, Protocol] = {name: PROTOCOLS[name](self.bench) for name in options.metrics}
        self.needs_heatmaps = any(protocol.needs_heatmaps for protocol in self.protocols.values())
        self.needs_features = any(protocol.needs_features for protocol in self.protocols.values())
        self.needs_whole = any(protocol.needs_whole for protocol in self.protocols.values())
        self.task: str | None = None
        """What the classifier's logits are, once it has given some."""
        self._order: dict[str, list[int]] = {name: [] for name in options.metrics}
        self._rows: dict[int, dict[str, str]] = {}
        self._shown: dict[int, tuple[Picture, NDArray[np.float32]]] = {}

    @property
    def wants_maps(self) -> bool:
        """Whether any protocol judges heatmaps."""
        return self.needs_heatmaps or self.needs_whole

    def judge(self, views: Sequence[Views]) -> None:
        """Everything about one group of images."""
        unlabelled = [view.path for view in views if view.label < 0]
        if unlabelled:
            raise DataError(f"{unlabelled[0]} has no label, and an evaluation needs one for each image: leave it out.")
        group = Group(self.bench, views, has_heatmaps=self.needs_heatmaps, has_features=self.needs_features)
        if self.task is None:
            self.task = self._checked_task(group.logits)
        prediction = scores.predicted(group.logits, self.task)
        probability = scores.probability(group.logits, prediction, self.task)
        for position, view in enumerate(views):
            self._rows[view.index] = {
                "path": view.path,
                "label": str(int(group.labels[position])),
                "prediction": str(int(prediction[position])),
                "probability": f"{float(probability[position]):.6g}",
            }
        for name, protocol in self.protocols.items():
            self._order[name] += _judged(protocol, group)
        if self.wants_maps:
            self._shown |= {index: (picture, values) for index, picture, values in group.pictures()}

    def record(self, total: int) -> RunRecord:
        """What came out, the same on every process."""
        subject, options = self.subject, self.options
        protocols = self.protocols.items()
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
            metrics=[
                replace(
                    metric.record(options.num_bootstrap, options.seed, protocol=self._details(protocol)), family=name
                )
                for name, protocol in protocols
                for metric in protocol.metrics
            ],
            profiles=[profile for _, protocol in protocols for profile in protocol.profiles()],
            scatters=[scatter for _, protocol in protocols for scatter in protocol.scatters()],
            curves=subject.curves,
            skipped_images=list(subject.images.skipped),
        )
        rows = self._all_rows()
        return RunRecord(record, [rows[index] for index in sorted(rows)], self._gallery(rows), subject.sheets)

    def _all_rows(self) -> dict[int, dict[str, str]]:
        """A row per image of every process, with a column per metric; skipped values are empty."""
        for name, protocol in self.protocols.items():
            for metric in protocol.metrics:
                for index, value in zip(self._order[name], metric.own_values().tolist(), strict=True):
                    self._rows[index][metric.name] = "" if math.isnan(value) else f"{value:.6g}"
        return {index: row for rows in ranks.gathered(self._rows) for index, row in rows.items()}

    def _gallery(self, rows: dict[int, dict[str, str]]) -> Gallery | None:
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
            paths=[row["path"] for row in kept],
            labels=[int(row["label"]) for row in kept],
            predictions=[int(row["prediction"]) for row in kept],
            probabilities=[float(row["probability"]) for row in kept],
        )

    def _details(self, protocol: Protocol) -> dict[str, Any]:
        """The choices behind the numbers; the task where it is not the usual one, named or not in the options."""
        return {**protocol.details(), **({} if self.task in (None, "multiclass") else {"task": self.task})}

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


def _judged(protocol: Protocol, group: Group) -> Sequence[int]:
    try:
        return protocol.judge(group)
    except ArgumentError as error:
        fresh = type(protocol)(protocol.bench)
        raise of_an_image(error, group.views, lambda position: fresh.judge(group.alone(position))) from None
