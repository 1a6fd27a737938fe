"""Whether an explanation tells one class from another ("Why Not Other Classes?", NeurIPS 2022, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from contrex.data.streams import stream
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
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
from contrex.records import Profile

SIGNS = ("positive", "negative")
TARGETS = ("t1", "t2")
SCORES: dict[str, str | None] = {"original": None, "mean": "mean", "max": "max", "weighted": "weighted"}
"""The scores that the paper compares, as `contrast` takes them."""
QUANTITIES = {"accuracy": "accuracy, %", "logit": "change of y_t", "probability": "change of p_t"}


class RelativeProbabilityUnderMasking(Protocol):
    """Relative probability of the two most probable classes when only what their maps keep is left of the image."""

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
        threshold = self.options.threshold
        self.whole = [RelativeProbability(target, threshold=threshold) for target in TARGETS]
        self.masked = [
            [
                [RelativeProbability(t, sign, name, threshold=threshold) for t in TARGETS]
                for name in self.options.baselines
            ]
            for sign in SIGNS
        ]
        self.metrics = [*self.whole, *(metric for sign in self.masked for pair in sign for metric in pair)]

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
        """`[N,signs,baselines,2]`; only images whose second class counts are explained."""
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
            self.bench.network,
            images,
            own,
            other,
            top2=pair,
            signs=SIGNS,
            baselines=baseline_images(images, self.options.baselines, sigma=self._sigma(group, chosen)),
            protocol=self.options.protocol,
            threshold=self.options.threshold,
            logits=group.logits[chosen],
            batch_size=self.bench.chunk,
        )
        return values

    def _sigma(self, group: Group, chosen: Tensor) -> float | Tensor:
        if self.options.protocol != "published-code":
            return self.options.sigma
        seed = self.bench.options.seed
        drawn = [stream("blur", seed, group.indices[index]).uniform(10, 20) for index in chosen.tolist()]
        return torch.tensor(drawn, dtype=torch.float64, device="cpu")


class GradientSigns(Protocol):
    """Gradient sign perturbation: how accuracy, logit and probability move along each score's input gradient."""

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
                GradientSign(name, quantity, epsilon=epsilon)
                for quantity in QUANTITIES
                for epsilon in self.options.epsilons
            ]
            for name in SCORES
        }
        self.metrics = [metric for metrics in self.columns.values() for metric in metrics]
        self.means = {(quantity, name): CurveMean() for quantity in QUANTITIES for name in SCORES}

    def judge(self, group: Group) -> Sequence[int]:
        classifier, epsilons = self.bench.subject.classifier, self.options.epsilons
        network, squares, labels = self.bench.network, group.squares, group.labels
        found = gradient_sign_curves(
            network,
            squares,
            labels,
            {name: score_gradient(network, contrast) for name, contrast in SCORES.items()},
            epsilons,
            first=score_gradients(network, squares, labels, SCORES, batch_size=self.bench.chunk),
            num_steps=self.options.num_steps,
            mean=classifier.mean,
            std=classifier.std,
            logits=group.logits,
            batch_size=self.bench.chunk,
        )
        for name, curves in found.items():
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
        given = {"num_bootstrap": self.bench.options.num_bootstrap, "seed": self.bench.options.seed}
        return [
            Profile(
                f"gradient_sign_{quantity}",
                f"Gradient sign perturbation: {quantity}",
                "epsilon",
                title,
                {name: self.means[quantity, name].points(x, **given) for name in SCORES},
            )
            for quantity, title in QUANTITIES.items()
        ]

    def details(self) -> dict[str, Any]:
        return {"explainer": "input gradient", "explained_class": "label", "num_steps": self.options.num_steps}
