"""The protocol that asks whether the explanation depends on the network: parameters are randomised from the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contrex import ranks
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.explain.named import build_explainer
from contrex.metrics import (
    CurveMean,
    RandomizationSimilarity,
    chance_similarity,
    changes,
    map_similarity,
    randomized,
)
from contrex.records import Profile


class ParameterRandomization(Protocol):
    """Parameter randomisation (sanity check): how alike maps stay when the network's parameters go."""

    name = "parameter_randomization"
    title = "Parameter randomisation"
    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.similarity = RandomizationSimilarity("spearman")
        self.metrics = [self.similarity]
        self.mean = CurveMean()
        self.stages = [name for name, child in bench.network.named_children() if any(True for _ in child.parameters())]
        self._chance: list[torch.Tensor] = []

    def meaning(self) -> str:
        return (
            "How alike heatmaps stay when the network's parameters are drawn anew: an explanation that hardly changes "
            "does not depend on what the network has learnt."
        )

    def judge(self, group: Group) -> Sequence[int]:
        options, plain = self.bench.options, group.explanation
        # The curve begins at the trained network, whose maps are their own equals.
        similarities = [torch.ones(len(group), dtype=torch.float64, device=self.bench.device)]
        for _, network in randomized(self.bench.network, stages=self.stages, seed=options.seed):
            # Made anew at each stage: it is another network, and what an explainer has found out about the last one is
            # out of date.
            explainer = build_explainer(network, options.explainer, options.layer)
            other = self.bench.explain(
                group.squares, plain.target, group.views, contrast=options.contrast, explainer=explainer
            )
            similarities.append(map_similarity(plain.heatmap, other.heatmap))
        self.similarity.update(similarities[-1])
        self.mean.update(torch.stack(similarities, dim=1))
        if len(group) > 1:
            self._chance.append(chance_similarity(plain.heatmap))
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        options = self.bench.options
        x = [float(number) for number in range(len(self.stages) + 1)]
        points = self.mean.points(x, num_bootstrap=options.num_bootstrap, seed=options.seed)
        title = f"stages randomised, from the top: {', '.join(reversed(self.stages))}"
        return [Profile("randomization", "Parameter randomisation", title, "Spearman correlation", {"": points})]

    def details(self) -> dict[str, Any]:
        values, chance = self.similarity.values(), self._all_chance()
        verdict = "unknown: no map has a similarity"
        if not values.isnan().all():
            verdict = "changes" if changes(values, chance) else "flagged: it does not change"
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted by the trained network",
            "chance": None if chance is None else float(chance.nanmean()),
            "verdict": verdict,
        }

    def _all_chance(self) -> torch.Tensor | None:
        """The similarities of heatmaps of different images, from all processes; None where there are none."""
        parts = [part for parts in ranks.gathered([part.cpu() for part in self._chance]) for part in parts]
        chance = torch.cat(parts) if parts else torch.empty(0)
        return None if chance.isnan().all() else chance
