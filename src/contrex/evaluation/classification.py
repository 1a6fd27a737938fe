"""Protocols for the classifier alone: accuracy, calibration, and accuracy under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from contrex.evaluation.bench import Bench, Group, labels_by
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    Answers,
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

    name = "top1"
    title = "Top-1 accuracy"
    judges_classifier_only = True
    k: ClassVar[int] = 1
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [TopKAccuracy(k=self.k)]

    def meaning(self) -> str:
        return "How often the most probable class is the right one."

    def judge(self, group: Group) -> Sequence[int]:
        self.metrics[0].update(group.logits, group.labels)
        return group.indices


class Top5(Top1):
    """Top-5 accuracy: how often the label is among the five most probable classes."""

    name = "top5"
    title = "Top-5 accuracy"
    k = 5
    min_classes = 5

    def meaning(self) -> str:
        return "How often the right class is among the five most probable ones."


class Calibration(Protocol):
    """Expected calibration error, and the reliability diagram behind it."""

    name = "calibration"
    title = "Calibration"
    judges_classifier_only = True
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.error = ExpectedCalibrationError(bench.options.calibration_bins)
        self.metrics = [self.error]

    def meaning(self) -> str:
        return "How far the network's confidence is from how often it is right, averaged over bins of equal confidence."

    def judge(self, group: Group) -> Sequence[int]:
        self.error.update(group.logits, group.labels)
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        diagram = self.error.diagram()
        filled = diagram.count > 0
        deviation = (diagram.accuracy * (1 - diagram.accuracy) / diagram.count).sqrt()
        columns = zip(diagram.confidence[filled], diagram.accuracy[filled], 1.96 * deviation[filled], strict=True)
        points = [(float(x), float(y), max(0.0, float(y - half)), min(1.0, float(y + half))) for x, y, half in columns]
        return [Profile("reliability", "Reliability diagram", "confidence", "accuracy", {"": points}, "reliability")]


class FGSM(Protocol):
    """Top-1 accuracy under the fast gradient sign attack."""

    name = "fgsm"
    title = "Accuracy under attack (FGSM)"
    judges_classifier_only = True
    min_classes = 2
    unfit: ClassVar[Mapping[str, str]] = {"multilabel": ONE_LABEL}

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        sizes = bench.options.fgsm_epsilons
        self.metrics = [self.placed(RobustAccuracy(epsilon), {"epsilon": epsilon}) for epsilon in sizes]

    def meaning(self) -> str:
        return (
            "How often the most probable class is still the right one after every pixel took one small step, of the "
            "size given, against the network."
        )

    def judge(self, group: Group) -> Sequence[int]:
        classifier = self.bench.subject.classifier
        lower, upper = pixel_bounds(classifier.mean, classifier.std)
        answers, labels = Answers(self.bench.network, group.squares, batch_size=self.bench.chunk), group.labels
        direction = fgsm_direction(answers, labels)
        for epsilon, metric in zip(self.bench.options.fgsm_epsilons, self.metrics, strict=True):
            moved = fgsm(
                answers, labels, epsilon=epsilon, std=classifier.std, lower=lower, upper=upper, direction=direction
            )
            logits = self.bench.logits(moved)
            metric.update(logits, labels_by(group.views, logits))
        return group.indices

    def details(self) -> dict[str, Any]:
        return {"attacked_class": "label", "clamped_to": "valid pixels"}
