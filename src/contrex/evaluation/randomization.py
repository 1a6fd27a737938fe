"""The protocol that asks whether the explanation depends on the network: parameters are randomised from the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contrex import ranks, settings
from contrex.evaluation.asking import explained_again
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.explain.named import build_explainer
from contrex.metrics import (
    CurveMean,
    RandomizationSimilarity,
    below_chance,
    chance_similarity,
    changes,
    map_similarity,
    randomized,
)
from contrex.metrics.similarity import KINDS
from contrex.ops import heatmap
from contrex.records import Profile


class ParameterRandomization(Protocol):
    """Parameter randomisation (sanity check): how alike maps stay when the network's parameters go."""

    name = "parameter_randomization"
    title = "Parameter randomisation"
    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.options = bench.options.randomization
        self.is_cascading = self.options.order == "cascading"
        self.similarity = RandomizationSimilarity(self.options.similarity, each=not self.is_cascading)
        self.metrics = [self.similarity]
        self.mean = CurveMean()
        # What the network owns itself, such as a class token, is drawn last.
        own = [""] if next(bench.network.parameters(recurse=False), None) is not None else []
        children = [name for name, child in bench.network.named_children() if any(True for _ in child.parameters())]
        self.stages = [*own, *children]
        self._chance: list[torch.Tensor] = []

    def meaning(self) -> str:
        each = "" if self.is_cascading else ", those of one stage after the other while all else stays"
        return (
            f"How alike heatmaps stay when the network's parameters are drawn anew{each}: an explanation that hardly "
            "changes does not depend on what the network has learnt."
        )

    def judge(self, group: Group) -> Sequence[int]:
        options, plain = self.bench.options, group.explanation
        # The curve begins at the trained network, whose maps are their own equals.
        similarities = [torch.ones(len(group), dtype=torch.float64, device=self.bench.device)]
        for _, network in randomized(
            self.bench.network, stages=self.stages, seed=options.seed, order=self.options.order
        ):
            # Made anew at each stage: it is another network, and what an explainer has found out about the last one is
            # out of date.
            other = explained_again(group, group.squares, build_explainer(network, options.explainer, options.layer))
            before, after = self._seen(group, plain.heatmap, other.heatmap)
            similarities.append(map_similarity(before, after, self.options.similarity))
        together = torch.stack(similarities[1:])
        self.similarity.update(together[-1] if self.is_cascading else together.mean(dim=0))
        self.mean.update(torch.stack(similarities, dim=1))
        if len(group) > 1:
            (maps,) = self._seen(group, plain.heatmap)
            self._chance.append(chance_similarity(maps, self.options.similarity))
        return group.indices

    def _seen(self, group: Group, *maps: torch.Tensor) -> Sequence[torch.Tensor]:
        """The maps as they are compared: for SSIM, whose window is larger than most, at the size of the squares."""
        if self.options.similarity != "ssim":
            return maps
        return [heatmap.resize(one, group.size) for one in maps]

    def profiles(self) -> Sequence[Profile]:
        x = [float(number) for number in range(len(self.stages) + 1)]
        points = self.bench.points(self.mean, x)
        which = "" if self.is_cascading else ", each alone"
        names = [name or "the network's own parameters" for name in reversed(self.stages)]
        title = f"stages randomised{which}, from the top: {', '.join(names)}"
        return [Profile("randomization", "Parameter randomisation", title, self._axis, {"": points})]

    def details(self) -> dict[str, Any]:
        chance = self._all_chance()
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted by the trained network",
            "chance": None if chance is None else float(chance.nanmean()),
            **({} if self.options == settings.Randomization() else vars(self.options)),
            **({"verdict": self._verdict(chance)} if self.is_cascading else {}),
        }

    @property
    def _axis(self) -> str:
        return "Spearman correlation" if self.options.similarity == "spearman" else KINDS[self.options.similarity]

    def _verdict(self, chance: torch.Tensor | None) -> str:
        """Whether maps change enough when all is random. A sync point: all processes must call it."""
        values, is_signed = self.similarity.values(), self.options.similarity == "spearman"
        if values.isnan().all():
            return "unknown: no map has a similarity"
        if is_signed:
            return "changes" if changes(values, chance) else "flagged: it does not change"
        if chance is None:
            return "unknown: one image has no chance level"
        return "changes" if below_chance(values, chance) else "flagged: it does not change"

    def _all_chance(self) -> torch.Tensor | None:
        """The similarities of heatmaps of different images, from all processes; None where there are none."""
        parts = [part for parts in ranks.gathered([part.cpu() for part in self._chance]) for part in parts]
        chance = torch.cat(parts) if parts else torch.empty(0)
        return None if chance.isnan().all() else chance
