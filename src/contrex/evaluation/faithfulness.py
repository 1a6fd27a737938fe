"""Protocols that ask whether the heatmap shows what the network uses: pixels are kept, noise is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from contrex.evaluation.asking import answers_about
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    DropMagnitude,
    DropPercent,
    IncreaseMagnitude,
    IncreasePercent,
    Infidelity,
    MaxSensitivity,
    infidelity,
    kept_probabilities,
    max_sensitivity,
)
from contrex.metrics.drop_increase import ProbabilityChange

MEASURES = (DropPercent, DropMagnitude, IncreasePercent, IncreaseMagnitude)


class DropIncrease(Protocol):
    """Drop and increase of the predicted class's probability when only the most salient pixels are kept."""

    name = "drop_increase"
    title = "Drop and increase"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.fractions = bench.options.drop_fractions
        self.metrics = [self._column(measure, share) for share in self.fractions for measure in MEASURES]

    def _column(self, measure: type[ProbabilityChange], share: float) -> ProbabilityChange:
        metric, name = measure(fraction=share), measure.measure.__name__
        words = {"table": f"{100 * share:.6g} % kept", "row": name.replace("_", " ").capitalize()}
        return self.placed(metric, {"measure": name, "share": share}, **words)

    def meaning(self) -> str:
        return (
            "What happens to the probability of the predicted class when only the most salient pixels are kept: on how "
            "many images it falls or rises (percent), and by what share of itself (magnitude). Good explanations lose "
            "little and gain much."
        )

    def judge(self, group: Group) -> Sequence[int]:
        probs, kept_probs = kept_probabilities(answers_about(group), group.saliency, fractions=self.fractions)
        for metric in self.metrics:
            metric.update(probs, kept_probs, self.fractions)
        return group.indices

    def details(self) -> dict[str, Any]:
        shared = {"explained_class": "predicted", "scored_class": "predicted", "baseline": "zero"}
        return {**self.bench.shared_details(), **shared, "ranking": "signed map"}


class InfidelityToNoise(Protocol):
    """Infidelity: how badly the heatmap predicts how the network responds to noise."""

    name = "infidelity"
    title = "Infidelity"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [self.placed(Infidelity(), {"output": bench.options.infidelity.output})]

    def meaning(self) -> str:
        options = self.bench.options.infidelity
        scaled = ", scaled to its best fit," if options.normalise else ""
        return (
            f"How far the heatmap{scaled} is from predicting what happens to the {options.output} when noise is taken "
            "off the image (mean squared error)."
        )

    def judge(self, group: Group) -> Sequence[int]:
        options = self.bench.options.infidelity
        values = infidelity(
            answers_about(group),
            group.saliency,
            num_samples=options.num_samples,
            noise_std=options.noise_std,
            seeds=self.bench.seeds("infidelity", group.indices),
            output=options.output,
            normalise=options.normalise,
        )
        self.metrics[0].update(values)
        return group.indices

    def details(self) -> dict[str, Any]:
        options = vars(self.bench.options.infidelity)
        return {**self.bench.shared_details(), "explained_class": "predicted", "maps": "signed", **options}


class Sensitivity(Protocol):
    """Max-sensitivity: how much the heatmap changes when the image hardly does."""

    name = "max_sensitivity"
    title = "Max-sensitivity"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [MaxSensitivity()]

    def meaning(self) -> str:
        return (
            "How far the heatmap moves, relative to its size, under the worst of "
            f"{self.bench.options.max_sensitivity.num_samples} tiny changes of the image. A constant map does not move "
            "at all, so read it beside the others."
        )

    def judge(self, group: Group) -> Sequence[int]:
        options, asked = self.bench.options.max_sensitivity, self.bench.options

        def explain(images: Tensor, target: Tensor) -> Tensor:
            return self.bench.explainer(images, target=target, contrast=asked.contrast, task=asked.task).heatmap

        values = max_sensitivity(
            explain,
            group.squares,
            radius=options.radius,
            num_samples=options.num_samples,
            seeds=self.bench.seeds("max-sensitivity", group.indices),
            target=group.explanation.target,
            heatmap=group.explanation.heatmap,
            batch_size=self.bench.chunk,
        )
        self.metrics[0].update(values)
        return group.indices

    def details(self) -> dict[str, Any]:
        options = vars(self.bench.options.max_sensitivity)
        return {**self.bench.shared_details(), "explained_class": "predicted on the plain image", **options}
