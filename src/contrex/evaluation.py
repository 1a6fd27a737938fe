"""Running explainers and metrics over a data set, and writing down what came out.

Two views of every image are judged. Classification, the CGC loss and the insertion and deletion curves use the
*square* the network was made for (shorter side resized, central square). The content heatmap uses the *whole* image,
uncropped, as the published protocol does, so that no part of a box is cut off (unless the protocol says `square`).

Which class is explained: the label's for the content heatmap; the predicted one for the CGC loss and for the curves,
where it is also the one scored (the published code explains the label's class there).
"""

from __future__ import annotations

import datetime
import hashlib
import math
import platform
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from contrex import settings
from contrex._version import __version__
from contrex.data.evaluation_views import EvaluationViews, Views
from contrex.data.sample import ImageSet
from contrex.data.views import stream, view_sizes
from contrex.devices import device_named
from contrex.errors import ArgumentError, DataError, unknown_name
from contrex.explain import Explanation, LayerExplainer
from contrex.explain.named import build_explainer, explainer_class
from contrex.losses import cgc_losses
from contrex.metrics import (
    METRICS,
    PerSampleMetric,
    curve_fractions,
    deletion_curve,
    insertion_curve,
    top_k_correct,
)
from contrex.metrics.per_sample import Judged
from contrex.models import Classifier, eval_mode
from contrex.ops import geometry, heatmap
from contrex.ops.geometry import Crop
from contrex.ops.scores import CONTRASTS
from contrex.records import Gallery, MetricRecord, Record, RunRecord, to_plain

GROUP = 32
"""Images judged together: the CGC loss is defined on batches of 32 (CVPR 2022, section 4)."""

TEMPERATURE = settings.CGC.temperature
"""tau of the CGC loss as a metric: the paper's, whatever a run was trained with."""

PUBLISHED_SHORT_SIDE = 448
"""Shorter side of the whole image in the published content-heatmap protocol."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a classifier, the data it is judged on, and where it comes from.

    `checkpoint` says which weights of a training run these are; the record adds the SHA-256 of the weights.
    """

    name: str
    classifier: Classifier
    images: ImageSet
    data: settings.Data
    augmentation: settings.Augmentation = field(default_factory=settings.Augmentation)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    seed: int = 0


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything `options.metrics` names and keep a row per image.

    `progress(done, total)` is called after each group of images.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the split is empty, or its classes are not the classifier's.
        ArgumentError: a box or a heatmap cannot be judged (the message names the image), or the classifier has too few
            classes for a metric, or it takes squares only.
    """
    check_names(options)
    bench = Bench(subject, options)
    total = min(len(subject.images), options.limit or len(subject.images))
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    num_shown = min(options.gallery, total) if bench.wants_maps else 0  # pictures are shown with their heatmap
    gallery = set(np.linspace(0, total - 1, num_shown).round().astype(int).tolist())
    done = 0
    sizes = view_sizes(subject.data)
    views = EvaluationViews(
        subject.images,
        sizes,
        whole_side={"native": sizes[1], "published": PUBLISHED_SHORT_SIDE, "square": None}[
            options.content_heatmap_protocol
        ],
        needs_whole=bench.is_asked("whole_maps"),
        gallery=gallery,
    )
    for group in _groups(views, total, workers=options.workers):
        bench.judge(group)
        done += len(group)
        if progress is not None:
            progress(done, total)
    return RunRecord(_record(subject, options, bench, total), bench.rows(), bench.gallery() if gallery else None)


def check_names(options: settings.Evaluation, num_classes: int | None = None) -> None:
    """Raise now rather than after hours of training.

    Raises:
        UnknownNameError: a metric, the explainer or the contrast does not exist.
        ArgumentError: a metric needs more than `num_classes` classes, where that is known.
    """
    for name in options.metrics:
        if name not in METRICS:
            raise unknown_name("`evaluation.metrics`", name, METRICS)
        metric = METRICS[name]()
        if metric.judges not in get_args(Judged):
            raise unknown_name(f"`judges` of the metric {name}", metric.judges, get_args(Judged))
        if num_classes is not None and num_classes < metric.min_classes:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which needs at least {metric.min_classes} classes; "
                f"there are {num_classes}: leave it out."
            )
    explainer_class(options.explainer)
    if options.contrast is not None and options.contrast not in CONTRASTS:
        raise unknown_name("`contrast`", options.contrast, CONTRASTS)


def top1_accuracy(
    classifier: Classifier, images: ImageSet, data: settings.Data, *, device: torch.device, workers: int = 0
) -> float:
    """Accuracy in % on the square views, in eval mode; the network's mode is restored.

    Raises:
        DataError: there are no images.
    """
    if len(images) == 0:
        raise DataError(f"{images.name} has no images, so there is no accuracy: give it at least one.")
    views = EvaluationViews(images, view_sizes(data), whole_side=None, needs_whole=False, gallery=())
    network, correct = classifier.network, 0
    with eval_mode(network), torch.inference_mode():
        for group in _groups(views, len(images), workers=workers, size=4 * GROUP):
            squares = torch.stack([views.square for views in group])
            logits = network(classifier.normalise(squares.to(device)))
            labels = torch.tensor([views.label for views in group], device=device)
            correct += int(top_k_correct(logits.float(), labels, 1).sum())
    return 100 * correct / len(images)


class Bench:
    """Judges groups of images: holds the explainer, the metrics, the rows and the gallery."""

    def __init__(self, subject: Subject, options: settings.Evaluation) -> None:
        self.subject = subject
        self.options = options
        self.device = device_named(options.device)
        self.chunk = options.batch_size or (8 if self.device.type == "cpu" else 64)
        self.network = subject.classifier.network.to(self.device)
        self.explainer = build_explainer(self.network, options.explainer, options.layer)
        self.metrics: dict[str, PerSampleMetric] = {name: METRICS[name]() for name in options.metrics}
        self._judged: dict[str, list[int]] = {name: [] for name in options.metrics}
        self._rows: dict[int, dict[str, str]] = {}
        self._shown: dict[int, tuple[Views, NDArray[np.float32]]] = {}

    @property
    def wants_maps(self) -> bool:
        """Whether any metric judges heatmaps."""
        return any(metric.judges != "logits" for metric in self.metrics.values())

    def is_asked(self, *judged: Judged) -> bool:
        """Whether a metric judges one of these."""
        return any(metric.judges in judged for metric in self.metrics.values())

    def judge(self, group: list[Views]) -> None:
        """Everything about one group of images."""
        squares = self.normalise(torch.stack([views.square for views in group]))
        labels = torch.tensor([views.label for views in group], device=self.device)
        needs_maps = self.is_asked("cgc_losses", "insertion_curves", "deletion_curves")
        explanation = self.explain(squares, None, group) if needs_maps else None
        logits = explanation.logits if explanation is not None else self.logits(squares)
        if not self._rows:
            self._check_classes(logits.shape[1])
        probability, prediction = logits.softmax(1).max(1)
        for position, views in enumerate(group):
            self._rows[views.index] = {
                "path": views.path,
                "label": str(views.label),
                "prediction": str(int(prediction[position])),
                "probability": f"{float(probability[position]):.6g}",
            }
        self._show("logits", group, logits, labels)
        if explanation is not None:
            self._judge_maps(group, squares, explanation)
        self._judge_whole_images(group)

    def explain(self, images: Tensor, target: Tensor | None, group: Sequence[Views]) -> Explanation:
        """`explainer(images)` in chunks; `group` names the images where one cannot be explained."""

        def part(start: int, num: int) -> Explanation:
            chosen = None if target is None else target[start : start + num]
            return self.explainer(images[start : start + num], target=chosen, contrast=self.options.contrast)

        try:
            parts = [part(start, self.chunk) for start in range(0, len(images), self.chunk)]
        except ArgumentError as error:
            raise _of_an_image(error, group, lambda position: part(position, 1)) from None
        return Explanation(*(torch.cat([getattr(p, name) for p in parts]) for name in ("heatmap", "logits", "target")))

    def logits(self, images: Tensor) -> Tensor:
        """The network's logits in eval mode, in chunks."""
        with eval_mode(self.network), torch.inference_mode():
            return torch.cat([self.network(chunk).float() for chunk in images.split(self.chunk)])  # type: ignore[no-untyped-call]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as the network expects them, on the device."""
        return self.subject.classifier.normalise(images.to(self.device))

    def rows(self) -> list[dict[str, str]]:
        """A row per image in the order of the data set, with a column per metric; skipped values are empty."""
        for name, metric in self.metrics.items():
            for index, value in zip(self._judged[name], metric.values().tolist(), strict=True):
                self._rows[index][name] = "" if math.isnan(value) else f"{value:.6g}"
        return [self._rows[index] for index in sorted(self._rows)]

    def gallery(self) -> Gallery:
        """The pictures kept for a report."""
        shown = [self._shown[index] for index in sorted(self._shown)]
        rows = [self._rows[views.index] for views, _ in shown]
        return Gallery(
            images=[np.asarray(views.picture) for views, _ in shown],
            heatmaps=[values for _, values in shown],
            boxes=[views.picture_boxes() for views, _ in shown],
            paths=[views.path for views, _ in shown],
            labels=[views.label for views, _ in shown],
            predictions=[int(row["prediction"]) for row in rows],
            probabilities=[float(row["probability"]) for row in rows],
        )

    def _judge_maps(self, group: list[Views], squares: Tensor, explanation: Explanation) -> None:
        if self.is_asked("cgc_losses"):
            self._judge_consistency(group, squares, explanation)
        saliency = heatmap.resize(explanation.heatmap, (squares.shape[2], squares.shape[3]))
        step = self.curve_step()
        fractions = curve_fractions(saliency[0].numel(), step)
        if self.is_asked("insertion_curves"):
            curves = insertion_curve(
                self.network, squares, saliency, step=step, logits=explanation.logits, batch_size=self.chunk
            )
            self._show("insertion_curves", group, curves, fractions=fractions)
        if self.is_asked("deletion_curves"):
            curves = deletion_curve(
                self.network, squares, saliency, step=step, logits=explanation.logits, batch_size=self.chunk
            )
            self._show("deletion_curves", group, curves, fractions=fractions)

    def curve_step(self) -> int:
        """Pixels per step of the insertion and deletion curves."""
        return self.options.insertion_step or 8 * view_sizes(self.subject.data)[1]

    def _judge_consistency(self, group: list[Views], squares: Tensor, explanation: Explanation) -> None:
        """The CGC loss with the other images of the group as negatives; a last, incomplete group is skipped."""
        if len(group) < GROUP:
            self._show("cgc_losses", group, torch.empty(0), num_skipped=len(group))
            return
        crops = Crop.stack([self._crop(views) for views in group])
        moved = self.explain(geometry.warp_images(squares, crops), explanation.target, group)
        losses = cgc_losses(explanation.heatmap, moved.heatmap, crops, temperature=TEMPERATURE, size=squares.shape[3])
        self._show("cgc_losses", group, losses)

    def _crop(self, views: Views) -> Crop:
        augmentation, place = self.subject.augmentation, stream("evaluation crop", self.options.seed, views.index)
        return geometry.random_crop(
            1,
            views.square.shape[-1],
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            flip=augmentation.flip,
            generator=place,
        )

    def _judge_whole_images(self, group: list[Views]) -> None:
        """The content heatmap of the label's class; images of one size go through the network together."""
        by_shape: dict[tuple[int, ...], list[Views]] = defaultdict(list)
        for views in group:
            if views.whole is not None:
                by_shape[tuple(views.whole.shape)].append(views)
        for same in by_shape.values():
            images = self.normalise(torch.stack([views.whole for views in same if views.whole is not None]))
            labels = torch.tensor([views.label for views in same], device=self.device)
            maps = self._whole_maps(images, labels, same)
            if self.is_asked("whole_maps"):
                boxes, sizes = [views.boxes for views in same], [views.image_size for views in same]
                self._show("whole_maps", same, maps, boxes, sizes)
            for views, values in zip(same, maps.float().cpu().numpy(), strict=True):
                if views.picture is not None:
                    self._shown[views.index] = (views, values)

    def _whole_maps(self, images: Tensor, labels: Tensor, group: Sequence[Views]) -> Tensor:
        """The heatmaps of whole images, or an error that knows of networks made for one size."""
        try:
            return self.explain(images, labels, group).heatmap
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:
            if images.shape[2:] == group[0].square.shape[1:]:
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ArgumentError(
                f"{group[0].path}: the classifier does not take the whole image, {images.shape[2]} x "
                f"{images.shape[3]} pixels ({reason}). For a network of one input size set "
                '`content_heatmap_protocol` to "square".'
            ) from error

    def _show(self, judged: Judged, group: Sequence[Views], *columns: Any, **shared: Any) -> None:
        """Feed the metrics that judge this, and remember which images their new values belong to.

        `columns` hold a value per image of the group, `shared` what is the same for all.
        """
        for name, metric in self.metrics.items():
            if metric.judges == judged:
                _update(metric, group, columns, shared)
                self._judged[name] += [views.index for views in group]

    def _check_classes(self, num_classes: int) -> None:
        """Labels are positions among the classes: they mean nothing to a classifier of others."""
        images = self.subject.images
        if len(images.classes) != num_classes:
            raise DataError(
                f"{images.name} has {len(images.classes)} classes, the classifier {num_classes}, so its labels would "
                f"be read as other classes: give the folder a labels.csv with the classifier's class indices and a "
                f"classes.txt with its {num_classes} names, or evaluate a classifier of these {len(images.classes)}."
            )
        check_names(self.options, num_classes)


def configuration_of(subject: Subject, options: settings.Evaluation) -> dict[str, Any]:
    """What a record says about its making, as plain values: the subject's configuration, how it was measured, and
    which weights were."""
    checkpoint = {**subject.checkpoint, "sha256": weights_sha256(subject.classifier.network)}
    plain: dict[str, Any] = to_plain({**subject.configuration, "evaluation": options, "checkpoint": checkpoint})
    return plain


def weights_sha256(network: torch.nn.Module) -> str:
    """A fingerprint of all parameters and buffers: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def command_line() -> str:
    """The command as a shell reads it, where contrex's own command line is running; otherwise empty."""
    program = Path(sys.argv[0])
    is_own = program.stem == "contrex" or program.parts[-2:] == ("contrex", "__main__.py")
    return shlex.join(["contrex", *sys.argv[1:]]) if is_own else ""


def versions() -> dict[str, str]:
    """What computed this."""
    import torchvision

    return {
        "contrex": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
    }


def _record(subject: Subject, options: settings.Evaluation, bench: Bench, total: int) -> Record:
    return Record(
        name=subject.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command_line(),
        configuration=configuration_of(subject, options),
        versions=versions(),
        seed=subject.seed,
        dataset={"name": subject.images.name, "split": options.split, "num_images": total},
        classes=list(subject.images.classes),
        metrics=[_metric_record(name, bench) for name in options.metrics],
        curves=subject.curves,
        skipped_images=list(getattr(subject.images, "skipped", ())),
    )


def _metric_record(name: str, bench: Bench) -> MetricRecord:
    options = bench.options
    metric = bench.metrics[name]
    return metric.record(options.num_bootstrap, options.seed, protocol=_protocol(metric.judges, bench))


def _protocol(judged: Judged, bench: Bench) -> dict[str, Any]:
    """The choices behind a number that another protocol could make differently."""
    options, augmentation = bench.options, bench.subject.augmentation
    if judged == "logits":
        return {}
    layer = bench.explainer.layer if isinstance(bench.explainer, LayerExplainer) else "input"
    shared = {"explainer": options.explainer, "layer": layer, "contrast": options.contrast}
    if judged == "whole_maps":
        return {**shared, "explained_class": "label", "view": options.content_heatmap_protocol}
    if judged == "cgc_losses":
        return {
            **shared,
            "explained_class": "predicted on the plain image",
            "batch": GROUP,
            "temperature": TEMPERATURE,
            "crop_scale": list(augmentation.scale),
            "crop_ratio": list(augmentation.ratio),
            "flip": augmentation.flip,
            "seed": options.seed,
        }
    return {
        **shared,
        "explained_class": "predicted",
        "scored_class": "predicted",
        "ranking": "signed map",
        "step": bench.curve_step(),
        "baseline": "blurred image" if judged == "insertion_curves" else "zero",
    }


def _update(metric: PerSampleMetric, group: Sequence[Views], columns: Sequence[Any], shared: Mapping[str, Any]) -> None:
    def alone(position: int) -> None:
        metric.update(*(column[position : position + 1] for column in columns), **shared)

    try:
        metric.update(*columns, **shared)
    except ArgumentError as error:
        raise _of_an_image(error, group, alone) from None


def _of_an_image(error: ArgumentError, group: Sequence[Views], alone: Callable[[int], object]) -> ArgumentError:
    """The error of the first image of the group that raises one `alone`, with its path; else `error` itself."""
    for position, views in enumerate(group):
        try:
            alone(position)
        except ArgumentError as own:
            return type(own)(f"{views.path}: {own}")
    return error


def _groups(views: EvaluationViews, total: int, *, workers: int, size: int = GROUP) -> Iterator[list[Views]]:
    positions = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
    loader: Iterable[list[Views]] = DataLoader(
        views, batch_sampler=positions, collate_fn=list, num_workers=workers, generator=torch.Generator()
    )
    yield from loader
