"""Running explainers and metrics over a data set, and writing down what came out.

Two views of every image are judged. Classification, the CGC loss and the insertion and deletion curves use the
*square* the network was made for (shorter side resized, central square). The content heatmap uses the *whole* image,
uncropped, as the published protocol does, so that no part of a box is cut off (unless the protocol says `square`).

Which class is explained: the label's for the content heatmap; the predicted one for the CGC loss and for the curves,
where it is also the one scored (the published code explains the label's class there).
"""

from __future__ import annotations

import datetime
import math
import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from contrex import settings
from contrex._version import __version__
from contrex.data.evaluation_views import EvaluationViews, Views
from contrex.data.sample import ImageSet
from contrex.data.views import central_square, pixels, stream, view_sizes
from contrex.devices import device_named
from contrex.errors import ArgumentError, DataError, unknown_name
from contrex.explain import EXPLAINERS, ActivationExplainer, Explainer, Explanation
from contrex.losses import cgc_losses
from contrex.metrics import METRICS, PerSampleMetric, deletion_curve, insertion_curve, top_k_correct
from contrex.models import Classifier, eval_mode
from contrex.ops import geometry, heatmap
from contrex.ops.geometry import Crop
from contrex.ops.scores import CONTRASTS
from contrex.records import Gallery, MetricRecord, Record, RunRecord, to_plain

GROUP = 32
"""Images judged together: the CGC loss is defined on batches of 32 (CVPR 2022, section 4)."""

PUBLISHED_SHORT_SIDE = 448
"""Shorter side of the whole image in the published content-heatmap protocol."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a classifier, the data it is judged on, and where it comes from."""

    name: str
    classifier: Classifier
    images: ImageSet
    data: settings.Data
    augmentation: settings.Augmentation = field(default_factory=settings.Augmentation)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    seed: int = 0


def evaluate(
    subject: Subject, options: settings.Evaluation, *, progress: Callable[[int, int], None] | None = None
) -> RunRecord:
    """Measure everything `options.metrics` names and keep a row per image.

    `progress(done, total)` is called after each group of images.

    Raises:
        UnknownNameError: a metric or the explainer does not exist.
        DataError: the labels do not fit the classifier.
    """
    check_names(options)
    bench = Bench(subject, options)
    total = min(len(subject.images), options.limit or len(subject.images))
    if total == 0:
        raise DataError(f"the split {options.split!r} of {subject.images.name} has no images to evaluate.")
    gallery = set(np.linspace(0, total - 1, min(options.gallery, total)).round().astype(int).tolist())
    done = 0
    sizes = view_sizes(subject.data)
    views = EvaluationViews(
        subject.images,
        sizes,
        whole_side={"native": sizes[1], "published": PUBLISHED_SHORT_SIDE, "square": None}[
            options.content_heatmap_protocol
        ],
        needs_whole="content_heatmap" in options.metrics,
        gallery=gallery,
    )
    for group in _groups(views, total, workers=options.workers):
        bench.judge(group)
        done += len(group)
        if progress is not None:
            progress(done, total)
    return RunRecord(_record(subject, options, bench, total), bench.rows(), bench.gallery())


def check_names(options: settings.Evaluation) -> None:
    """Raise `UnknownNameError` now rather than after hours of training."""
    for name in options.metrics:
        if name not in METRICS:
            raise unknown_name("`evaluation.metrics`", name, METRICS)
    if options.explainer not in EXPLAINERS:
        raise unknown_name("`explainer`", options.explainer, EXPLAINERS)
    if options.contrast is not None and options.contrast not in CONTRASTS:
        raise unknown_name("`contrast`", options.contrast, CONTRASTS)


def top1_accuracy(classifier: Classifier, images: ImageSet, data: settings.Data, *, device: torch.device) -> float:
    """Accuracy in % on the square views, in eval mode; the network's mode is restored."""
    resize, size = view_sizes(data)
    network, correct = classifier.network, 0
    with eval_mode(network), torch.inference_mode():
        for start in range(0, len(images), 4 * GROUP):
            samples = [images[index] for index in range(start, min(start + 4 * GROUP, len(images)))]
            squares = torch.stack([pixels(central_square(s.image, resize=resize, size=size)) for s in samples])
            logits = network(classifier.normalise(squares.to(device)))
            correct += int(top_k_correct(logits.float(), torch.tensor([s.label for s in samples]).to(device), 1).sum())
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

    def judge(self, group: list[Views]) -> None:
        """Everything about one group of images."""
        squares = self.normalise(torch.stack([views.square for views in group]))
        labels = torch.tensor([views.label for views in group], device=self.device)
        wants_maps = {"cgc_loss", "insertion_auc", "deletion_auc"} & set(self.metrics)
        explanation = self.explain(squares, None) if wants_maps else None
        logits = explanation.logits if explanation is not None else self.logits(squares)
        self._check_labels(labels, logits)
        probability, prediction = logits.softmax(1).max(1)
        for position, views in enumerate(group):
            self._rows[views.index] = {
                "path": views.path,
                "label": str(views.label),
                "prediction": str(int(prediction[position])),
                "probability": f"{float(probability[position]):.6g}",
            }
        for name in {"top1", "top5"} & set(self.metrics):
            self._update(name, group, logits, labels)
        if explanation is not None:
            self._judge_maps(group, squares, explanation)
        self._judge_whole_images(group)

    def explain(self, images: Tensor, target: Tensor | None) -> Explanation:
        """`explainer(images)` in chunks."""
        parts = [
            self.explainer(
                images[start : start + self.chunk],
                target=None if target is None else target[start : start + self.chunk],
                contrast=self.options.contrast,
            )
            for start in range(0, len(images), self.chunk)
        ]
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
        if "cgc_loss" in self.metrics:
            self._judge_consistency(group, squares, explanation)
        saliency = heatmap.resize(explanation.heatmap, (squares.shape[2], squares.shape[3]))
        step = self.options.insertion_step or 8 * squares.shape[3]
        for name, curve in (("insertion_auc", insertion_curve), ("deletion_auc", deletion_curve)):
            if name in self.metrics:
                curves = curve(
                    self.network, squares, saliency, step=step, logits=explanation.logits, batch_size=self.chunk
                )
                self._update(name, group, curves)

    def _judge_consistency(self, group: list[Views], squares: Tensor, explanation: Explanation) -> None:
        """The CGC loss with the other images of the group as negatives; a last, incomplete group is skipped."""
        if len(group) < GROUP:
            self._update("cgc_loss", group, torch.empty(0), len(group))
            return
        crops = Crop.stack([self._crop(views) for views in group])
        moved = self.explain(geometry.warp_images(squares, crops), explanation.target)
        losses = cgc_losses(explanation.heatmap, moved.heatmap, crops, size=squares.shape[3])
        self._update("cgc_loss", group, losses)

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
            maps = self.explain(images, labels).heatmap
            if "content_heatmap" in self.metrics:
                boxes, sizes = [views.boxes for views in same], [views.image_size for views in same]
                self._update("content_heatmap", same, maps, boxes, sizes)
            for views, values in zip(same, maps.float().cpu().numpy(), strict=True):
                if views.picture is not None:
                    self._shown[views.index] = (views, values)

    def _update(self, name: str, group: Sequence[Views], *arguments: object) -> None:
        """Feed a metric, and remember which images its new values belong to."""
        self.metrics[name].update(*arguments)
        self._judged[name] += [views.index for views in group]

    def _check_labels(self, labels: Tensor, logits: Tensor) -> None:
        largest, num_classes = int(labels.max()), logits.shape[1]
        if largest >= num_classes:
            raise DataError(
                f"{self.subject.images.name} has label {largest}, but the classifier has {num_classes} classes: "
                "it was made for other classes, or `labels.csv` gives other indices."
            )


def build_explainer(network: torch.nn.Module, name: str, layer: str | None) -> Explainer:
    """The explainer called `name`, at `layer` where it has one."""
    if name not in EXPLAINERS:
        raise unknown_name("`explainer`", name, EXPLAINERS)
    kind = EXPLAINERS[name]
    if issubclass(kind, ActivationExplainer):
        return kind(network, layer)
    if layer is not None:
        raise ArgumentError(f"`layer` {layer!r} means nothing to {name}, which explains the input: drop it.")
    return kind(network)


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
        command=" ".join(["contrex", *sys.argv[1:]]),
        configuration={**subject.configuration, "evaluation": to_plain(options)},
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
    return bench.metrics[name].record(options.num_bootstrap, options.seed, protocol=_protocol(name, bench))


def _protocol(name: str, bench: Bench) -> dict[str, Any]:
    """The choices behind a number that another protocol could make differently."""
    options = bench.options
    if name in ("top1", "top5"):
        return {}
    layer = bench.explainer.layer if isinstance(bench.explainer, ActivationExplainer) else "input"
    shared = {"explainer": options.explainer, "layer": layer, "contrast": options.contrast}
    if name == "content_heatmap":
        return {**shared, "explained_class": "label", "view": options.content_heatmap_protocol}
    if name == "cgc_loss":
        return {**shared, "explained_class": "predicted on the plain image", "batch": GROUP}
    return {**shared, "explained_class": "predicted", "scored_class": "predicted", "ranking": "signed map"}


def _groups(views: EvaluationViews, total: int, *, workers: int) -> Iterator[list[Views]]:
    positions = [list(range(start, min(start + GROUP, total))) for start in range(0, total, GROUP)]
    loader: Iterable[list[Views]] = DataLoader(
        views, batch_sampler=positions, collate_fn=list, num_workers=workers, generator=torch.Generator()
    )
    yield from loader
