"""Gamma of LRP's rule, layer by layer, by a search for the most faithful maps of a few photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain import LRP
from contrex.explain.asked import Targets
from contrex.explain.propagation.names import weight_axes
from contrex.metrics.insertion import area_under_curve, deletion_curve
from contrex.models.classifier import Classifier
from contrex.models.layers import unwrap

_OF_ATTENTION = ("attn", "attention")


@dataclass(frozen=True)
class GammaSearch:
    """What a search found: a gamma for each group of layers, how faithful the maps are, and all that it tried."""

    groups: Mapping[str, str]
    """The names of the layers of each group, with spaces between them."""
    by_group: Mapping[str, float]
    faithfulness: float
    """The area between the curves with these gammas, the mean over the images."""
    trials: Sequence[tuple[Mapping[str, float], float]]
    """Each setting in the order of the search, with its faithfulness."""
    options: Mapping[str, Any]
    """The other options of LRP."""

    @property
    def gamma(self) -> tuple[tuple[str, float], ...]:
        """What `LRP(gamma=...)` takes."""
        return _pairs(self.groups, self.by_group)

    @property
    def explainer(self) -> str:
        """The explainer as a text, for `--explainer`, settings and records."""
        told = ", ".join(f"{name}={value!r}" for name, value in {**self.options, "gamma": self.gamma}.items())
        return f"lrp({told})"


def search_gamma(
    model: nn.Module | Classifier,
    images: Tensor,
    *,
    target: Targets = None,
    groups: Mapping[str, str] | None = None,
    gammas: Sequence[float] = (0.0, 0.01, 0.05, 0.1, 0.25, 1.0),
    rounds: int = 1,
    num_steps: int = 16,
    **options: Any,
) -> GammaSearch:
    """Find the gammas whose maps of `images` [N,C,H,W] are the most faithful.

    Faithfulness is the area between two curves of the target's probability, `A(LeRF) - A(MoRF)`, while pixels are set
    to zero, the least and the most relevant first (Achtibat et al., "AttnLRP", ICML 2024, who measure so; they take the
    logit). First each gamma is tried in all layers, then one group after the other tries each while the rest stay;
    only what is better is taken. Nothing is drawn, so the same call finds the same.

    It costs `G + rounds * groups * (G - 1)` maps of all images, for G gammas, each with `2 * num_steps` forward passes.

    Args:
        target: as in a call of an explainer, the same class in each trial: None takes the predictions.
        groups: names of layers for each group, as `LRP(gamma=...)` takes them; None takes `layer_groups`.
        gammas: the values tried; the first wins where two are as good.
        rounds: how often the groups are gone through.
        num_steps: points of a curve.
        options: the other options of `LRP`: `rules`, `constant`, `start`.

    Raises:
        ArgumentError: there are no gammas or groups, a gamma is negative, or `rounds` or `num_steps` is below 1.
        UnknownNameError: a group names a layer that there is not.
    """
    for name, value in (("rounds", rounds), ("num_steps", num_steps)):
        if value < 1:
            raise ArgumentError(f"`{name}` must be at least 1, got {value}.")
    groups = layer_groups(model) if groups is None else groups
    if not gammas or not groups:
        raise ArgumentError(f"`gammas` and `groups` must not be empty, got {list(gammas)} and {dict(groups)}.")
    search = _Search(model, images, target, groups, num_steps, options)
    for gamma in gammas:
        search.attempt(dict.fromkeys(groups, gamma))
    for _ in range(rounds):
        for group in groups:
            best = search.best()[0]
            for gamma in gammas:
                if gamma != best[group]:
                    search.attempt({**best, group: gamma})
    best, faithfulness = search.best()
    return GammaSearch(groups, best, faithfulness, search.trials, options)


def layer_groups(model: nn.Module | Classifier) -> dict[str, str]:
    """The layers with weights in groups: the first and the second half of the convolutions, those of attention, the
    other dense ones, and the last layer. Empty ones are left out; the order is that in which the model holds them.

    >>> layer_groups(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)))
    {'early convolutions': '0', 'late convolutions': '1', 'head': '3'}
    """
    network = unwrap(model.network if isinstance(model, Classifier) else model)
    axes = weight_axes(network)
    *inner, head = axes
    convolutions = [name for name in inner if axes[name] > 2]
    dense = [name for name in inner if name not in convolutions]
    attention = [name for name in dense if any(word in name for word in _OF_ATTENTION)]
    half = (len(convolutions) + 1) // 2
    found = {
        "early convolutions": convolutions[:half],
        "late convolutions": convolutions[half:],
        "attention": attention,
        "dense": [name for name in dense if name not in attention],
        "head": [head],
    }
    return {group: " ".join(members) for group, members in found.items() if members}


class _Search:
    """The settings that were tried, each with its faithfulness."""

    def __init__(
        self,
        model: nn.Module | Classifier,
        images: Tensor,
        target: Targets,
        groups: Mapping[str, str],
        num_steps: int,
        options: Mapping[str, Any],
    ) -> None:
        self.trials: list[tuple[Mapping[str, float], float]] = []
        self._model, self._images, self._groups, self._options = model, images, groups, options
        # The same classes in all trials.
        self._target = LRP(model, **options)(images, target=target).target
        self._step = -(-images.shape[2] * images.shape[3] // num_steps)

    def attempt(self, by_group: Mapping[str, float]) -> None:
        """Measure a setting, unless it was."""
        if any(by_group == tried for tried, _ in self.trials):
            return
        explainer = LRP(self._model, gamma=_pairs(self._groups, by_group), **self._options)
        maps = explainer(self._images, target=self._target).heatmap.to(self._images.dtype)
        self.trials.append((by_group, self._faithfulness(explainer.model, maps)))

    def best(self) -> tuple[Mapping[str, float], float]:
        """The most faithful setting so far, the first of those that are as good."""
        return max(self.trials, key=lambda trial: trial[1])

    def _faithfulness(self, network: nn.Module, maps: Tensor) -> float:
        """The mean of `A(LeRF) - A(MoRF)`."""
        least, most = (
            area_under_curve(deletion_curve(network, self._images, sign * maps, target=self._target, step=self._step))
            for sign in (-1, 1)
        )
        return float((least - most).mean())


def _pairs(groups: Mapping[str, str], by_group: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((names, by_group[group]) for group, names in groups.items())
