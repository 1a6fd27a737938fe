"""Protocols that ask whether the heatmap shows what the network uses: pixels are kept, noise is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contrex.evaluation.asking import answers_about, explained_again, label_saliency
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    ComposedScore,
    DropMagnitude,
    DropPercent,
    IncreaseMagnitude,
    IncreasePercent,
    Infidelity,
    MaxSensitivity,
    SingleDeletion,
    adcc,
    arcc,
    coherency,
    complexity,
    drop_magnitude,
    infidelity,
    kept_probabilities,
    max_sensitivity,
    road_difference,
    single_deletion,
    unit_maps,
)
from contrex.metrics.composed import MEASURES
from contrex.metrics.drop_increase import ProbabilityChange
from contrex.metrics.probing import class_probability

CHANGES = (DropPercent, DropMagnitude, IncreasePercent, IncreaseMagnitude)


class DropIncrease(Protocol):
    """Drop and increase of the predicted class's probability when only the most salient pixels are kept."""

    name = "drop_increase"
    title = "Drop and increase"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.fractions = bench.options.drop_fractions
        self.metrics = [self._column(measure, share) for share in self.fractions for measure in CHANGES]

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


class Composed(Protocol):
    """ARCC and ADCC: how coherent, simple and telling the heatmap is, in one score each."""

    name = "arcc"
    title = "ARCC and ADCC"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.columns = {measure: ComposedScore(measure) for measure in MEASURES}
        self.metrics = list(self.columns.values())

    def meaning(self) -> str:
        return (
            "Whether a map stays the same when the image is multiplied by it (coherency), how much of the image it "
            "covers (complexity), what of the probability is left of the image times its map (average drop) and how "
            "much more is left without its least salient pixels than without its most salient ones (ROAD). ARCC and "
            "ADCC are harmonic means: of coherency and 1 - complexity with ROAD, or with 1 - average drop."
        )

    def judge(self, group: Group) -> Sequence[int]:
        maps = unit_maps(group.explanation.heatmap, group.size)
        masked = group.squares * maps.nan_to_num()[:, None].to(group.squares)
        # The explanation's own forward pass gives the probability of the masked image, too.
        again, answers = explained_again(group, masked), answers_about(group)
        left = class_probability(again.logits, again.target, self.bench.options.task)
        seeds = self.bench.seeds("road", group.indices)
        known = {
            "coherency": coherency(maps, unit_maps(again.heatmap, group.size)),
            "complexity": complexity(maps),
            "average_drop": drop_magnitude(answers.whole(), left),
            "road": road_difference(answers, group.saliency, fractions=self.bench.options.arcc_fractions, seeds=seeds),
        }
        known["adcc"] = adcc(known["coherency"], known["complexity"], known["average_drop"])
        known["arcc"] = arcc(known["coherency"], known["complexity"], known["road"])
        for measure, metric in self.columns.items():
            metric.update(known[measure].where(~known["complexity"].isnan(), torch.nan))
        return group.indices

    def details(self) -> dict[str, Any]:
        words = {"explained_class": "predicted", "scored_class": "predicted", "maps": "positive, stretched to 0..1"}
        return {**self.bench.shared_details(), **words, "road_fractions": list(self.bench.options.arcc_fractions)}


class SingleDeletionScore(Protocol):
    """Single deletion score (IDSDS): whether the heat of each part of the image ranks what its deletion costs."""

    name = "single_deletion"
    title = "Single deletion score"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.options = bench.options.single_deletion
        self.metrics = [self.placed(SingleDeletion(), {"grid": self.options.grid, "output": self.options.output})]

    @property
    def _in_domain(self) -> bool:
        """Whether the record of the network's training says that it has seen images with zeros for one cell of this
        grid."""
        method = self.bench.subject.configuration.get("method") or {}
        is_same = method.get("deletion_grid") == self.options.grid and self.options.baseline == "zero"
        return bool(method.get("deletions")) and is_same

    def meaning(self) -> str:
        told = (
            "The network was trained on such images."
            if self._in_domain
            else "As far as its settings tell, the network was not trained on such images: it may answer to the hole, "
            "not to what is missing."
        )
        grid = self.options.grid
        return (
            f"Whether the more heat a cell of a {grid} x {grid} grid has, the more of the {self.options.output} of the "
            f"label goes when that cell alone is deleted (Spearman correlation over the cells). {told}"
        )

    def judge(self, group: Group) -> Sequence[int]:
        answers = answers_about(group, target=group.labels)
        self.metrics[0].update(single_deletion(answers, label_saliency(group), **vars(self.options)))
        return group.indices

    def details(self) -> dict[str, Any]:
        verdict = {} if self._in_domain else {"verdict": "not in domain: the network was not trained with deletions"}
        words = {"explained_class": "label", "scored_class": "label", "ranking": "signed map"}
        own = {"deletion_grid": self.options.grid, "baseline": self.options.baseline, "output": self.options.output}
        return {**self.bench.shared_details(), **words, **own, **verdict}


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
