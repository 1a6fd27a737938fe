"""The protocol that compares the maps of networks of one task: trained once more, or of other architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from contrex import settings
from contrex.errors import ArgumentError
from contrex.evaluation.asking import explained_again
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.subject import weights_sha256
from contrex.explain import Explainer
from contrex.explain.named import build_explainer
from contrex.metrics import MapAgreement, map_similarity
from contrex.metrics.agreement import Relation
from contrex.models import Classifier, eval_mode, model_logits
from contrex.ops import heatmap
from contrex.records import MetricRecord

SIMILARITIES = ("ssim", "spearman")


@dataclass
class Other:
    """Another network of the task, on the device of the bench, with its explainer."""

    name: str
    classifier: Classifier
    bench: Bench
    num_classes_checked: bool = False

    @cached_property
    def explainer(self) -> Explainer:
        """The same explainer as the bench's, of this network."""
        options = self.bench.options
        try:
            return build_explainer(self.network, options.explainer, options.layer)
        except ArgumentError as error:
            raise type(error)(f"`evaluation.others` {self.name}: {error}") from None

    @cached_property
    def network(self) -> nn.Module:
        """The network, on the device."""
        return self.classifier.network.to(self.bench.device)

    @cached_property
    def relation(self) -> Relation:
        """Whether it is the same architecture trained again, or another one."""
        return "repeatability" if _shapes(self.network) == _shapes(self.bench.network) else "reproducibility"

    def heatmaps(self, group: Group) -> Tensor:
        """Its signed heatmaps of the group's squares, for the classes that the judged network predicts: [N,h,w]."""
        images = self.classifier.normalise(torch.stack([views.square for views in group.views]).to(self.bench.device))
        if not self.num_classes_checked:
            self._check_classes(images[:1], group.logits.shape[1])
        return explained_again(group, images, self.explainer).heatmap

    def _check_classes(self, images: Tensor, num_classes: int) -> None:
        with eval_mode(self.network), torch.inference_mode():
            own = model_logits(self.network, images).shape[1]
        if own != num_classes:
            raise ArgumentError(
                f"`evaluation.others` {self.name} has {own} logits, the network that is judged {num_classes}: name "
                "networks of the same classes."
            )
        self.num_classes_checked = True


class Repeatability(Protocol):
    """Repeatability and reproducibility: whether networks of one task have the same maps (Arun et al. 2021)."""

    name = "repeatability"
    title = "Repeatability and reproducibility"
    needs_heatmaps = True

    @classmethod
    def check_options(cls, options: settings.Evaluation) -> None:
        """Refuse options without other networks."""
        if not options.others:
            raise ArgumentError(
                "`evaluation.metrics` has repeatability, which compares maps with those of other networks: name them, "
                "--others RUN RUN, or leave the metric out."
            )

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        if not bench.subject.others:
            raise ArgumentError(
                "`evaluation.metrics` has repeatability, and the subject has no `others` to compare maps with: give "
                "Subject(others={name: classifier})."
            )
        self.others = [Other(name, one, bench) for name, one in _different(bench).items()]
        self.columns: dict[tuple[Relation, str], MapAgreement] = {
            (relation, kind): MapAgreement(relation, kind)
            for relation in dict.fromkeys(other.relation for other in self.others)
            for kind in SIMILARITIES
        }
        self.metrics = list(self.columns.values())

    def meaning(self) -> str:
        relations = [relation for relation, kind in self.columns if kind == SIMILARITIES[0]]
        who = {
            "repeatability": "a network of the same architecture, trained separately (repeatability)",
            "reproducibility": "a network of another architecture (reproducibility)",
        }
        return (
            f"How alike the heatmap of an image is to that by {' and by '.join(who[one] for one in relations)}, for "
            "the class that the first predicts. Maps of different images, which share no more than their smoothness "
            "and their middle, say what is alike by chance."
        )

    def judge(self, group: Group) -> Sequence[int]:
        resized = [heatmap.resize(other.heatmaps(group), group.size).to(group.saliency) for other in self.others]
        maps = {other.name: one for other, one in zip(self.others, resized, strict=True)}
        for (relation, kind), metric in self.columns.items():
            theirs = [maps[other.name] for other in self.others if other.relation == relation]
            metric.update(*_similarities(group.saliency, theirs, kind))
        return group.indices

    def details(self) -> dict[str, Any]:
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted by the judged network",
            "others": {other.name: weights_sha256(other.network) for other in self.others},
        }

    def records(self, more: Mapping[str, Any]) -> list[MetricRecord]:
        """The entries, each with what its similarity is by chance, and whether it is more than that."""
        entries, options = super().records(more), self.bench.options
        words = {None: "unknown: too few images", True: "more alike than by chance", False: "no more than by chance"}
        given = {"num_bootstrap": options.num_bootstrap, "seed": options.seed}
        told = [{"chance": one.chance(), "verdict": words[one.beyond_chance(**given)]} for one in self.columns.values()]
        return [replace(one, protocol={**one.protocol, **more}) for one, more in zip(entries, told, strict=True)]


def _different(bench: Bench) -> Mapping[str, Classifier]:
    """The other networks: those with other weights than the judged one and the others before.

    Raises:
        ArgumentError: there is none.
    """
    own = weights_sha256(bench.network)
    by_weights: dict[str, tuple[str, Classifier]] = {}
    for name, one in bench.subject.others.items():
        by_weights.setdefault(weights_sha256(one.network), (name, one))
    found = dict(one for sha256, one in by_weights.items() if sha256 != own)
    if not found:
        raise ArgumentError(
            f"`evaluation.others` {' '.join(bench.subject.others)}: these are the weights that are judged, and their "
            "maps are alike whatever they are. Name networks that were trained separately."
        )
    return found


def _similarities(own: Tensor, others: Sequence[Tensor], kind: str) -> tuple[Tensor, Tensor]:
    """The mean similarity [N] of each image's map with those of other networks, and that with their maps of the next
    image, the first one's for the last; NaN for an image alone."""
    same = torch.stack([map_similarity(own, maps, kind) for maps in others])
    moved = torch.stack([map_similarity(own, maps.roll(-1, dims=0), kind) for maps in others])
    by_chance = moved.mean(dim=0) if len(own) > 1 else torch.full_like(moved[0], torch.nan)
    return same.mean(dim=0), by_chance


def _shapes(network: nn.Module) -> list[tuple[str, torch.Size]]:
    """The names and shapes of its parameters, by which architectures are told apart."""
    return [(name, parameter.shape) for name, parameter in network.named_parameters()]
