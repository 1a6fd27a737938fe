"""The rules of LRP for layers with weights, and which layer gets which.

After Montavon et al., "Layer-Wise Relevance Propagation: An Overview" (2019), for inputs of either sign.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.propagation.rules import TINY, LinearMap, part

Gammas = float | tuple[tuple[str, float], ...]
"""One gamma for all layers with weights, or pairs of names of layers and a gamma."""


class Rule(ABC):
    """How one layer shares out the relevance of its output: `R_j = sum_i (share of j in z_i) R_i`."""

    @abstractmethod
    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        """Share the relevance of a layer's output out, and return that of its input."""


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ArgumentError(f"`{name}` must not be negative, got {value}.")


@dataclass(frozen=True)
class Epsilon(Rule):
    """`R_j = sum_i x_j w_ij / (z_i + epsilon sign z_i) R_i`; the bias, part of `z_i`, keeps its share."""

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_not_negative("epsilon", self.epsilon)

    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        return layer.share([(layer.x, layer.weight)], relevance, bias=layer.bias, epsilon=self.epsilon)


@dataclass(frozen=True)
class Gamma(Rule):
    """`R_j = sum_i (z_ij + gamma z+_ij) / sum_k (z_ik + gamma z+_ik) R_i` with `z_ij = w_ij x_j`.

    Positive contributions count more. The bias is one more contribution. Where an output is negative, negative
    contributions count more instead.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        _check_not_negative("gamma", self.gamma)

    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        is_negative = layer.output() < 0
        shares = self._share(layer, relevance.masked_fill(is_negative, 0.0), 1)
        # Waits for the device: without such outputs, as behind a ReLU, it saves half of the convolutions.
        if bool((is_negative & (relevance != 0)).any()):
            shares = shares + self._share(layer, relevance.masked_fill(~is_negative, 0.0), -1)
        return shares

    def _share(self, layer: LinearMap, relevance: Tensor, sign: int) -> Tensor:
        favoured = layer.exciting() if sign > 0 else layer.inhibiting()
        terms = [(layer.x, layer.weight), *((self.gamma * x, weight) for x, weight in favoured)]
        bias = None if layer.bias is None else layer.bias + self.gamma * part(layer.bias, sign)
        return layer.share(terms, relevance, bias=bias, epsilon=TINY)


@dataclass(frozen=True)
class ZPlus(Rule):
    """`R_j = sum_i z+_ij / sum_k z+_ik R_i`: positive contributions alone, without the bias (deep Taylor)."""

    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        return layer.share(layer.exciting(), relevance, epsilon=0.0)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """`R_j = sum_i (alpha z+_ij / z+_i - beta z-_ij / z-_i) R_i` with `beta = alpha - 1`, biases in `z+_i` and `z-_i`
    (Bach et al., eq. 60)."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        if not self.alpha >= 1:
            raise ArgumentError(f"`alpha` must be at least 1, as beta = alpha - 1; got {self.alpha}.")

    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        biases = [None if layer.bias is None else part(layer.bias, sign) for sign in (1, -1)]
        shares = layer.share(layer.exciting(), self.alpha * relevance, bias=biases[0], epsilon=0.0)
        against = layer.inhibiting()
        if self.alpha == 1 or not against:
            return shares
        return shares + layer.share(against, (1 - self.alpha) * relevance, bias=biases[1], epsilon=0.0)


@dataclass(frozen=True)
class ZBox(Rule):
    """`R_j = sum_i (w_ij x_j - w+_ij l_j - w-_ij h_j) / sum_k (...) R_i` for pixels between `l` and `h`.

    z^B of Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition" (2017).
    `low` and `high` are the darkest and brightest pixel as the layer takes them, normalised: one number or one per
    channel. None takes each image's own smallest and largest value in each channel. If the network normalises images
    itself, the relevance of the normalised ones is theirs.
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __call__(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        low, high = self._bounds(layer.x)
        terms = [
            (layer.x, layer.weight),
            (-low.expand_as(layer.x), layer.weights(1)),
            (-high.expand_as(layer.x), layer.weights(-1)),
        ]
        return layer.share(terms, relevance, epsilon=TINY)

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(2, x.ndim))
        low = x.amin(axes, keepdim=True) if self.low is None else _per_channel("low", self.low, x)
        high = x.amax(axes, keepdim=True) if self.high is None else _per_channel("high", self.high, x)
        if bool((x < low).any()) or bool((x > high).any()):
            raise ArgumentError(
                f"`low` and `high` of ZBox must enclose the images, which go from {float(x.min()):.4g} to "
                f"{float(x.max()):.4g} where the first layer takes them; got {self.low} and {self.high}."
            )
        return low, high


@dataclass(frozen=True)
class Composite:
    """Which rule each layer gets: `named` by module name; else `first`, which sees the pixels; else by kind.

    Pooling and sums of branches always share in proportion (epsilon rule); so do batch norm that cannot be folded and
    layer and group norm, by `normalisation`.
    """

    first: Rule = field(default_factory=Epsilon)
    convolution: Rule = field(default_factory=Epsilon)
    dense: Rule = field(default_factory=Epsilon)
    named: Mapping[str, Rule] = field(default_factory=dict)
    normalisation: Epsilon = field(default_factory=Epsilon)


COMPOSITES: Mapping[str, Composite] = {
    "epsilon": Composite(),
    "epsilon-plus": Composite(ZPlus(), ZPlus(), Epsilon()),
    "epsilon-alpha-beta": Composite(AlphaBeta(), AlphaBeta(), Epsilon()),
    "epsilon-gamma-box": Composite(ZBox(), Gamma(), Epsilon()),
    "gamma": Composite(Gamma(), Gamma(), Gamma(0.05)),
}


def gamma_rules(gamma: Gammas, layers: Sequence[str], others: Sequence[str] = ()) -> list[tuple[str, Rule]]:
    """Patterns of names, each with the rule that `gamma` sets: of a layer the first that matches.

    Each must match one of the `layers`, or of `others`, which may be layers.
    """
    pairs = gamma if isinstance(gamma, (tuple, list)) else (("*", gamma),)
    found: list[tuple[str, Rule]] = []
    for patterns, value in pairs:
        _check_not_negative("gamma", value)
        for pattern in patterns.split():
            # A single layer has no name; it also stands in where options are checked before there is a network.
            if any(layers) and not any(fnmatchcase(name, pattern) for name in (*layers, *others)):
                raise unknown_name("a layer in `gamma`", pattern, layers)
            # Gamma 0 is the epsilon rule, which costs half.
            found.append((pattern, Gamma(value) if value else Epsilon()))
    return found


def _per_channel(name: str, value: float | tuple[float, ...], x: Tensor) -> Tensor:
    bounds = torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1)
    if len(bounds) not in (1, x.shape[1]):
        raise ArgumentError(f"`{name}` of ZBox must be one number or {x.shape[1]}, one per channel; got {len(bounds)}.")
    return bounds.view(1, -1, *[1] * (x.ndim - 2))
