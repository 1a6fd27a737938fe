"""Protocols that ask whether an explanation tells classes apart ("Why Not Other Classes?", NeurIPS 2022, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from contrex.data.streams import stream
from contrex.evaluation.asking import answers_about
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    Answers,
    CurveMean,
    GradientSign,
    RelativeProbability,
    baseline_images,
    gradient_sign_curves,
    masked_relative_probability,
    relative_probability,
    score_gradient,
    score_gradients,
    two_most_probable,
)
from contrex.metrics.masking import SIGNS
from contrex.metrics.relative_probability import TARGETS
from contrex.records import Dims, Profile

SCORES: dict[str, str | None] = {"original": None, "mean": "mean", "max": "max", "weighted": "weighted"}
"""The scores that the paper compares, as `contrast` takes them."""
BASELINE_WORDS = {"blur": "blurred", "zero": "zero", "mean": "mean colour"}
"""Words for what the pixels that are not kept become."""
QUANTITIES = {"accuracy": "accuracy, %", "logit": "change of y_t", "probability": "change of p_t"}


class RelativeProbabilityUnderMasking(Protocol):
    """Relative probability of the two most probable classes when only what their maps keep is left of the image."""

    name = "relative_probability"
    title = "Relative probability under masking"
    min_classes = 2
    unfit: ClassVar[Mapping[str, str]] = {
        "binary": "the map of one logit is its own contrast, so there are no two kinds of maps to compare",
        "multilabel": "labels do not compete, so none has a probability relative to another",
    }

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.options = bench.options.relative_probability
        usual = "weighted" if bench.options.contrast is None else "original"
        self.against = self.options.against or usual
        self.whole = [self._column(target) for target in TARGETS]
        self.masked = [
            [[self._column(target, sign, name) for target in TARGETS] for name in self.options.baselines]
            for sign in SIGNS
        ]
        self.metrics = [*self.whole, *(metric for sign in self.masked for pair in sign for metric in pair)]

    def _column(self, target: str, sign: str | None = None, baseline: str | None = None) -> RelativeProbability:
        metric = RelativeProbability(target, sign, baseline, threshold=self.options.threshold)
        if sign is None or baseline is None:
            return self.placed(metric, {"target": target}, section="Whole image", row=target)
        dims = {"sign": sign, "baseline": baseline, "target": target}
        row = f"rest {BASELINE_WORDS[baseline]}, {target}"
        return self.placed(metric, dims, section=f"{sign.capitalize()} features kept", row=row)

    def meaning(self) -> str:
        return (
            "The probability of one of the two most probable classes, t1 and t2, as if there were no others, when only "
            "the pixels that its own heatmap keeps are left of the image. Kept positive pixels should raise it above "
            "that of the whole image, kept negative ones lower it."
        )

    def judge(self, group: Group) -> Sequence[int]:
        top2 = two_most_probable(group.logits)
        values = self._values(group, top2)
        counts = (~values[:, 0, 0, 0].isnan())[:, None]
        for place, metric in enumerate(self.whole):
            whole = relative_probability(group.logits, top2[:, place], top2)
            metric.update(whole.where(counts[:, 0], torch.nan))
        for sign, rows in enumerate(self.masked):
            for baseline, pair in enumerate(rows):
                for place, metric in enumerate(pair):
                    metric.update(values[:, sign, baseline, place])
        return group.indices

    def details(self) -> dict[str, Any]:
        drawn = self.options.protocol == "published-code"
        return {
            **self.bench.shared_details(),
            "explained_class": "the two most probable",
            "protocol": self.options.protocol,
            "against": self.against,
            "threshold": self.options.threshold,
            "sigma": "drawn from 10 to 20" if drawn else self.options.sigma,
        }

    def _values(self, group: Group, top2: Tensor) -> Tensor:
        """The relative probabilities `[N,signs,baselines,2]`; NaN, and not explained, where the second class is too
        improbable."""
        shape = (len(group), len(SIGNS), len(self.options.baselines), 2)
        values = torch.full(shape, torch.nan, dtype=torch.float64, device=self.bench.device)
        second = group.logits.double().softmax(1).gather(1, top2[:, 1:])[:, 0]
        chosen = (second > self.options.threshold).nonzero()[:, 0]
        if not len(chosen):
            return values
        images, pair = group.squares[chosen], top2[chosen]
        views = [group.views[index] for index in chosen.tolist()]
        contrasts = (self.bench.options.contrast, SCORES[self.against])
        own, other = self.bench.explain_classes(images, pair, views, contrasts)
        values[chosen] = masked_relative_probability(
            Answers(self.bench.network, images, logits=group.logits[chosen], batch_size=self.bench.chunk),
            own,
            other,
            top2=pair,
            signs=SIGNS,
            baselines=baseline_images(images, self.options.baselines, sigma=self._sigma(group, chosen)),
            protocol=self.options.protocol,
            threshold=self.options.threshold,
        )
        return values

    def _sigma(self, group: Group, chosen: Tensor) -> float | Tensor:
        if self.options.protocol != "published-code":
            return self.options.sigma
        seed = self.bench.options.seed
        # One for each image and seed, while the published code draws anew each time: so two methods are blurred alike.
        drawn = [stream("blur", seed, group.indices[index]).uniform(10, 20) for index in chosen.tolist()]
        return torch.tensor(drawn, dtype=torch.float64, device="cpu")


class GradientSigns(Protocol):
    """Gradient sign perturbation: how accuracy, logit and probability move along each score's input gradient."""

    name = "gradient_sign"
    title = "Gradient sign perturbation"
    judges_classifier_only = True
    min_classes = 2
    unfit: ClassVar[Mapping[str, str]] = {
        "binary": "the gradients of its four scores are the same for one logit",
        "multilabel": "it compares scores of a softmax, and labels have none",
    }

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.options = bench.options.gradient_sign
        self.columns = {
            name: [
                self._column(name, quantity, epsilon) for quantity in QUANTITIES for epsilon in self.options.epsilons
            ]
            for name in SCORES
        }
        self.metrics = [metric for metrics in self.columns.values() for metric in metrics]
        self.means = {(quantity, name): CurveMean() for quantity in QUANTITIES for name in SCORES}

    def _column(self, explanation: str, quantity: str, epsilon: float) -> GradientSign:
        metric = GradientSign(explanation, quantity, epsilon=epsilon)
        dims: Dims = {"explanation": explanation, "quantity": quantity, "epsilon": epsilon}
        size = f"{epsilon:.12f}".rstrip("0").rstrip(".")
        return self.placed(metric, dims, section=f"Change of {quantity}, epsilon {size}", row=explanation)

    def meaning(self) -> str:
        steps = self.options.num_steps
        walk = "takes one small step" if steps == 1 else f"takes {steps} small steps"
        return (
            f"What changes when every pixel {walk} along the sign of the input gradient of a score: the class's logit "
            "alone (original), or against the other classes (mean, max, weighted). The logit's own gradient moves the "
            "logit most, the weighted contrast should move probability and accuracy most."
        )

    def judge(self, group: Group) -> Sequence[int]:
        classifier, epsilons = self.bench.subject.classifier, self.options.epsilons
        network, squares, labels = self.bench.network, group.squares, group.labels
        first = score_gradients(network, squares, labels, SCORES, batch_size=self.bench.chunk)
        curves_of = gradient_sign_curves(
            answers_about(group),
            labels,
            {name: (score_gradient(network, contrast), first[name]) for name, contrast in SCORES.items()},
            epsilons,
            num_steps=self.options.num_steps,
            mean=classifier.mean,
            std=classifier.std,
        )
        for name, curves in curves_of.items():
            for metric in self.columns[name]:
                metric.update(curves, epsilons)
            before = 100 * curves.correct_before[:, None]
            zero = torch.zeros_like(before)
            self.means["accuracy", name].update(torch.cat([before, 100 * curves.correct], dim=1))
            self.means["logit", name].update(torch.cat([zero, curves.logit_change], dim=1))
            self.means["probability", name].update(torch.cat([zero, curves.probability_change], dim=1))
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        x = [0.0, *self.options.epsilons]
        return [
            Profile(
                f"gradient_sign_{quantity}",
                f"Gradient sign perturbation: {quantity}",
                "epsilon",
                title,
                {name: self.bench.points(self.means[quantity, name], x) for name in SCORES},
            )
            for quantity, title in QUANTITIES.items()
        ]

    def details(self) -> dict[str, Any]:
        return {"explainer": "input gradient", "explained_class": "label", "num_steps": self.options.num_steps}
