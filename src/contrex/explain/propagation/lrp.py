"""Layer-wise relevance propagation (Bach et al., PLOS ONE 2015), with rules by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError, unknown_name
from contrex.explain.asked import Targets
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About, plain
from contrex.explain.propagation.conservation import Conservation, Ledger
from contrex.explain.propagation.explainer import RelevanceExplainer, RelevancePass
from contrex.explain.propagation.layer_rules import COMPOSITES as COMPOSITES
from contrex.explain.propagation.layer_rules import AlphaBeta as AlphaBeta
from contrex.explain.propagation.layer_rules import Composite as Composite
from contrex.explain.propagation.layer_rules import Epsilon as Epsilon
from contrex.explain.propagation.layer_rules import Gamma as Gamma
from contrex.explain.propagation.layer_rules import Gammas, gamma_rules
from contrex.explain.propagation.layer_rules import Rule as Rule
from contrex.explain.propagation.layer_rules import ZBox as ZBox
from contrex.explain.propagation.layer_rules import ZPlus as ZPlus
from contrex.explain.propagation.linear_maps import WITH_WEIGHTS
from contrex.explain.propagation.names import layer_names, names_of_tensors
from contrex.explain.propagation.rules import TINY, LinearMap, Rules, ratio
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site
from contrex.ops import scores
from contrex.ops.scores import Contrast, Question

Start = Literal["logit", "one"]
Constant = Literal["nothing", "gates", "attention", "both"]
"""What only weighs other data, and gets no relevance."""


class LRP(RelevanceExplainer):
    """Relevance of the score shared out layer by layer; the map sums it over channels.

    `layer` is the images (`"input"`), a layer, or None for the last feature map. `rules` is a `Composite` or the name
    of one: `"epsilon"` (gradient x input, where nothing has a bias), `"epsilon-plus"`, `"epsilon-alpha-beta"`,
    `"epsilon-gamma-box"` or `"gamma"`. `gamma` sets the gamma rule beside them: one number for all layers with weights,
    or pairs of names and a number, the first that matches a layer: `(("blocks.*.attn.* head", 0.0), ("*", 0.1))`. Names
    may have wildcards, and stand with spaces between them; weights that a module computes have its name, and those
    without a module the parameter's. `contrex.gamma_search.search_gamma` finds such pairs.

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
        LayerError: a function behind the layer has no rule; a rule by name may have missed its layer.
        ArgumentError: `start="one"` for a network of one logit; a negative gamma.
        UnknownNameError: an option has no such value, or `gamma` or `rules` name a layer that there is not.
    """

    name = "lrp"
    unit = "relevance"
    is_density = True

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
        self._composite = COMPOSITES[rules] if isinstance(rules, str) else rules
        self._layers, others = layer_names(self.model), names_of_tensors(self.model)
        for name in self._composite.named:
            if name not in self._layers and name not in others:
                raise unknown_name("`rules.named`", name, self._layers)
        self._gammas = [] if gamma is None else gamma_rules(gamma, self._layers, others)
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
        return _ByLayer(self._composite, self._gammas, self._constant, self._ledger)

    def _run(
        self, images: Tensor, layers: Sequence[Site], *, graph: str, watched: nn.Module | None = None
    ) -> RelevancePass:
        run = super()._run(images, layers, graph=graph, watched=watched)
        ran = [one.layer for one in run.trace.maps if one.layer.kind in WITH_WEIGHTS]
        self._check_names({layer.name for layer in ran}, layers)
        if isinstance(self._composite.first, ZBox) and not layers and not any(layer.is_first for layer in ran):
            raise LayerError(
                f"no layer of {type(self.model).__name__} takes the images, as `first` (ZBox) needs: more is done with "
                "them before than to move, scale and shift them. Use rules with another `first`, such as 'gamma'."
            )
        return run

    def _check_names(self, ran: Set[str], layers: Sequence[Site]) -> None:
        """Refuse a rule by name that no layer got where one may have gone without: one whose weights are computed, or
        that has no module."""
        for pattern in (*(one for one, _ in self._gammas), *self._composite.named):
            if any(fnmatchcase(name, pattern) for name in ran) or not any(self._layers):
                continue
            is_of_module = any(fnmatchcase(name, pattern) for name in self._layers)
            if "" in ran or not (is_of_module or layers):
                why = "some weights are none of the model's parameters" if "" in ran else "it is not used as weights"
                raise LayerError(
                    f"no layer got the rule of {pattern!r} (`gamma` or `rules.named`): {why}. Leave it out, or use '*'."
                )

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

    def __init__(
        self, composite: Composite, gammas: Sequence[tuple[str, Rule]], constant: Constant, ledger: Ledger | None
    ) -> None:
        self._composite, self._gammas, self.ledger = composite, gammas, ledger
        self._are_gates_constant = constant in ("gates", "both")
        self.is_softmax_constant = constant in ("attention", "both")

    def meet(self, layer: LinearMap) -> None:
        # The box gives relevance to pixels that are zero, too. A sum would let one near zero, on either side of it,
        # have any number of times its share.
        self.takes_normalised_pixels |= layer.is_first and isinstance(self._rule(layer), ZBox)

    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        if layer.is_first and layer.kind == "normalisation" and self.takes_normalised_pixels:
            return relevance
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
        by_name = next((rule for pattern, rule in self._gammas if fnmatchcase(layer.name, pattern)), None)
        by_name = by_name or self._composite.named.get(layer.name)
        if by_name is not None:
            return by_name
        if layer.is_first:
            return self._composite.first
        return self._composite.dense if layer.kind == "dense" else self._composite.convolution
