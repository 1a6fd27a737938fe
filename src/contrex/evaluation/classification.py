"""How well the classifier classifies, how well it knows that, and how little it takes to fool it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    ExpectedCalibrationError,
    RobustAccuracy,
    TopKAccuracy,
    fgsm,
    fgsm_direction,
    pixel_bounds,
)
from contrex.records import Profile

ONE_LABEL = "an image has one label here, and a classifier of several labels may rightly put another first"


class Top1(Protocol):
    """Top-1 accuracy: how often the most probable class is the label."""

    judges_classifier_only = True
    k: ClassVar[int] = 1
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [TopKAccuracy(k=self.k)]

    def judge(self, group: Group) -> Sequence[int]:
        self.metrics[0].update(group.logits, group.labels)
        return group.indices


class Top5(Top1):
    """Top-5 accuracy: how often the label is among the five most probable classes."""

    k = 5
    min_classes = 5


class Calibration(Protocol):
    """Expected calibration error, and the reliability diagram behind it."""

    judges_classifier_only = True
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.error = ExpectedCalibrationError(bench.options.calibration_bins)
        self.metrics = [self.error]

    def judge(self, group: Group) -> Sequence[int]:
        self.error.update(group.logits, group.labels)
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        diagram = self.error.diagram()
        filled = diagram.count > 0
        deviation = (diagram.accuracy * (1 - diagram.accuracy) / diagram.count).sqrt()
        columns = zip(diagram.confidence[filled], diagram.accuracy[filled], 1.96 * deviation[filled], strict=True)
        points = [(float(x), float(y), max(0.0, float(y - half)), min(1.0, float(y + half))) for x, y, half in columns]
        return [Profile("reliability", "Reliability diagram", "confidence", "accuracy", {"": points})]


class FGSM(Protocol):
    """Top-1 accuracy under the fast gradient sign attack."""

    judges_classifier_only = True
    min_classes = 2
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [RobustAccuracy(epsilon) for epsilon in bench.options.fgsm_epsilons]

    def judge(self, group: Group) -> Sequence[int]:
        classifier = self.bench.subject.classifier
        lower, upper = pixel_bounds(classifier.mean, classifier.std)
        network, squares, labels = self.bench.network, group.squares, group.labels
        direction = fgsm_direction(network, squares, labels, batch_size=self.bench.chunk)
        for epsilon, metric in zip(self.bench.options.fgsm_epsilons, self.metrics, strict=True):
            moved = fgsm(
                network,
                squares,
                labels,
                epsilon=epsilon,
                std=classifier.std,
                lower=lower,
                upper=upper,
                direction=direction,
            )
            metric.update(self.bench.logits(moved), labels)
        return group.indices

    def details(self) -> dict[str, Any]:
        return {"attacked_class": "label", "clamped_to": "valid pixels"}
