"""Layer-wise relevance propagation (Bach et al., PLOS ONE 2015), with rules by layer.

Rules after Montavon et al., "Layer-Wise Relevance Propagation: An Overview" (2019), for inputs of either sign.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.explainer import Targets
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About, plain
from contrex.explain.propagation.conservation import Conservation, Ledger
from contrex.explain.propagation.explainer import RelevanceExplainer
from contrex.explain.propagation.linear_maps import layer_names
from contrex.explain.propagation.rules import TINY, LinearMap, Rules, part, ratio
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape
from contrex.ops import scores
from contrex.ops.scores import Contrast, Question

Start = Literal["logit", "one"]
Constant = Literal["nothing", "gates", "attention", "both"]
"""What only weighs other data, and gets no relevance."""
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
    `low` and `high` are the darkest and brightest normalised pixel, one number or one per channel; None takes each
    image's own smallest and largest value in each channel.
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
                f"{float(x.max()):.4g}; got {self.low} and {self.high}."
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


class LRP(RelevanceExplainer):
    """Relevance of the score shared out layer by layer; the map sums it over channels.

    `layer` is the images (`"input"`), a layer, or None for the last feature map. `rules` is a `Composite` or the name
    of one: `"epsilon"` (gradient x input, where nothing has a bias), `"epsilon-plus"`, `"epsilon-alpha-beta"`,
    `"epsilon-gamma-box"` or `"gamma"`. `gamma` sets the gamma rule beside them: one number for all layers with weights,
    or pairs of names and a number, the first that matches a layer: `(("blocks.*.attn.* head", 0.0), ("*", 0.1))`. Names
    may have wildcards, and stand with spaces between them. `contrex.gamma_search.search_gamma` finds such pairs.

    What is not linear has AttnLRP's rules (Achtibat et al., ICML 2024): both factors of a product get half of the
    relevance. With `constant="gates"` a gate (a sigmoid, or a clamp from 0 on) gets nothing, what it lets through all
    (Arras et al., "Explaining recurrent neural network predictions in sentiment analysis", 2017); with `"attention"`
    the weights of attention get nothing (CP-LRP; Ali et al., "XAI for Transformers", ICML 2022); or `"both"`.

    Class k starts with the relevance `row_k y_k` (`start="logit"`), so a contrast's map is the weighted difference of
    the maps of the logits; with `start="one"` it is `row_k`, the `e_t - sum_s a_s e_s` of "Why Not Other Classes?".
    All rules are linear in relevance, so both roads to a contrast (Proposition 3) agree either way.

    Of one logit y (a sigmoid) class 0 starts with -y. `start="one"` would give both sides the same relevance and is
    refused there.

    Activations and dropout pass relevance on. Batch norm is folded, for the call only, into the layer before it or the
    dense layer behind it; elsewhere it shares in proportion, as layer and group norm do with their deviation as a
    constant.

    Raises:
        LayerError: a function behind the layer has no rule.
        ArgumentError: `start="one"` for a network of one logit; a negative gamma.
        UnknownNameError: an option has no such value, or `gamma` or `rules` name a layer that there is not.
    """

    name = "lrp"
    unit = "relevance"

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = "input",
        *,
        rules: str | Composite = "epsilon-plus",
        gamma: Gammas | None = None,
        constant: Constant = "nothing",
        start: Start = "logit",
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        if isinstance(rules, str) and rules not in COMPOSITES:
            raise unknown_name("`rules`", rules, COMPOSITES)
        for option, value, choices in (("`start`", start, Start), ("`constant`", constant, Constant)):
            if value not in get_args(choices):
                raise unknown_name(option, value, get_args(choices))
        composite, layers = COMPOSITES[rules] if isinstance(rules, str) else rules, layer_names(self.model)
        for name in composite.named:
            if name not in layers:
                raise unknown_name("`rules.named`", name, layers)
        self._composite = (
            composite if gamma is None else replace(composite, named=_with_gamma(composite, gamma, layers))
        )
        self._begins, self._constant, self._gamma = start, constant, gamma
        self._asked_rules = rules if isinstance(rules, str) else repr(rules)
        self._ledger: Ledger | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with; rules of one's own as they print."""
        chosen = {"rules": self._asked_rules, "gamma": plain(self._gamma)}
        return {**chosen, "constant": self._constant, "start": self._begins}

    def conservation(
        self, image: Tensor, *, target: Targets = None, contrast: Contrast = None, score: str = "logit"
    ) -> Conservation:
        """What became of the relevance of one image `[1,C,H,W]`: how much arrived, and what kept the rest.

        Target, contrast and score are those of a call.

        Raises:
            ArgumentError: there are several images, as each has its own relevance; and as in a call.
        """
        if len(image) != 1:
            raise ArgumentError(f"`image` must be one image [1,C,H,W], got {list(image.shape)}: ask for one at a time.")
        counting = copy.copy(self)  # other threads may use this one
        counting._ledger = Ledger()
        found = counting(image, target=target, contrast=contrast, score=score)
        return counting._ledger.balance(float(found.heatmap.double().sum()))

    def _rules(self) -> Rules:
        return _ByLayer(self._composite, self._constant, self._ledger)

    def _relevance(self, run: Pass, row: Tensor) -> Tensor:
        if self._ledger is not None:
            self._ledger.add("started", self._start(run, row))
        return super()._relevance(run, row)

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        if self._begins == "one" and scores.task_of(run.logits, question.task) == "binary":
            raise ArgumentError(
                "`start` 'one' gives both sides of one logit the same relevance, whichever is explained: use "
                "start='logit'."
            )
        return super()._maps(run, question, differentiable=differentiable)

    def _start(self, run: Pass, row: Tensor) -> Tensor:
        # A class masked by -inf has the weight 0, and 0 times -inf would be NaN.
        return row * run.logits.detach().where(row != 0, 0) if self._begins == "logit" else row


class _ByLayer(Rules):
    takes_attention: ClassVar[bool] = True

    def __init__(self, composite: Composite, constant: Constant, ledger: Ledger | None) -> None:
        self._composite, self.ledger = composite, ledger
        self._are_gates_constant = constant in ("gates", "both")
        self.is_softmax_constant = constant in ("attention", "both")

    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        return self._rule(layer)(layer, relevance)

    def addends(self, addends: Sequence[Tensor], constant: Tensor | None, relevance: Tensor) -> Sequence[Tensor]:
        total = sum(addends[1:], addends[0]) + (0.0 if constant is None else constant)
        shares = ratio(relevance, total, TINY)
        if self.ledger is not None and constant is not None:
            self.ledger.add("constants", torch.where(constant.isinf(), 0.0, constant) * shares)
        return [addend * shares for addend in addends]

    def factors(self, are_gates: tuple[bool, bool]) -> tuple[float, float] | None:
        is_even = not self._are_gates_constant or are_gates[0] == are_gates[1]
        return (0.5, 0.5) if is_even else (float(are_gates[1]), float(are_gates[0]))

    def _rule(self, layer: LinearMap) -> Rule:
        if layer.kind == "pooling":
            return Epsilon(TINY)
        if layer.kind == "normalisation":
            return self._composite.normalisation
        if layer.name in self._composite.named:
            return self._composite.named[layer.name]
        if layer.is_first:
            return self._composite.first
        return self._composite.dense if layer.kind == "dense" else self._composite.convolution


def _with_gamma(composite: Composite, gamma: Gammas, layers: Sequence[str]) -> Mapping[str, Rule]:
    """The rules of layers by name, with the gamma rule where `gamma` sets it."""
    pairs = gamma if isinstance(gamma, (tuple, list)) else (("*", gamma),)
    named: dict[str, Rule] = {}
    for patterns, value in pairs:
        _check_not_negative("gamma", value)
        for pattern in patterns.split():
            matching = [name for name in layers if fnmatchcase(name, pattern)]
            # A single layer has no name; it also stands in where options are checked before there is a network.
            if not matching and any(layers):
                raise unknown_name("a layer in `gamma`", pattern, layers)
            # Gamma 0 is the epsilon rule, which costs half.
            named |= {name: Gamma(value) if value else Epsilon() for name in matching if name not in named}
    return {**composite.named, **named}


def _per_channel(name: str, value: float | tuple[float, ...], x: Tensor) -> Tensor:
    bounds = torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1)
    if len(bounds) not in (1, x.shape[1]):
        raise ArgumentError(f"`{name}` of ZBox must be one number or {x.shape[1]}, one per channel; got {len(bounds)}.")
    return bounds.view(1, -1, *[1] * (x.ndim - 2))
