"""Excitation backprop (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack, get_args

from torch import Tensor, nn

from contrex.errors import unknown_name
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.survey import Survey
from contrex.explain.options import About
from contrex.explain.propagation.explainer import RelevanceExplainer
from contrex.explain.propagation.rules import LinearMap, Rules, part, ratio
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site
from contrex.settings import Variant


class ExcitationBackprop(RelevanceExplainer):
    """`P(x_j) = x_j sum_i w+_ij P(z_i) / sum_k w+_ik x_k`: the chance that a random walk from the explained class down
    the exciting connections passes a neuron (marginal winning probability, section 3.2); the map sums it over channels.

    It starts with probability 1 at the class; a contrast starts with its weights, so it is the signed difference of the
    probabilities. ReLU and maximum pooling pass it on, averages share it like weights of one. Of one logit (a sigmoid)
    walks start at class 1 only, so the map of class 0 is the negative; the contrastive method has what excites class 0.

    `layer` is by default the last that every walk passes and whose neurons fire or are silent (are not negative), on a
    finer grid than the last feature map: `layer3` of a ResNet, the last ReLU before the fifth pooling of VGG-16.
    `"input"` are the images.

    Deviations: the paper asks for neurons that are never negative. Here negative ones are silent and get nothing;
    pixels, which have both signs, share by their positive contributions `w_ij x_j > 0`. Batch norm is folded, and a sum
    of two branches shares by their positive parts. With `variant="published-code"` (TorchRay, with which the CGC paper
    measures) batch norm passes, and negative neurons and branches take part with their sign.

    A gate (a sigmoid, or a clamp from 0 on) that multiplies other neurons is a weight that is not negative: the walk
    goes on to what it lets through, as in squeeze and excitation.

    Raises:
        LayerError: a function behind the layer has no rule: other products of activations, softmax, layer norm.
    """

    name = "excitation_backprop"
    unit = "share of the evidence"

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        variant: Variant = "paper",
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        if variant not in get_args(Variant):
            raise unknown_name("`variant`", variant, get_args(Variant))
        self._variant = variant

    def _rules(self) -> Rules:
        return _Excitation() if self._variant == "paper" else _SignedExcitation()

    def _start(self, run: Pass, row: Tensor) -> Tensor:
        return row

    def _choose(self, survey: Survey) -> Site:
        """The last layer that every walk passes and whose neurons are not negative, on a finer grid than the last map;
        of those that there are, where none is all of this."""
        if self._reshape is not None or not survey.candidates:
            return survey.choose(self._reshape)
        whole = [one for one in survey.candidates if not one.only_cells] or survey.candidates
        finer = [one for one in whole if one.num_cells > whole[0].num_cells] or whole
        firing = [one for one in finer if one.run.output is not None and bool((one.run.output >= 0).all())]
        chosen = survey.first_placed(firing or finer)
        return survey.choose() if chosen is None else survey.site(chosen)


class _Excitation(Rules):
    """The rule of the paper: only what excites a neuron shares its relevance."""

    takes_normalised_pixels = True

    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        if layer.kind == "normalisation":
            return relevance
        terms = layer.exciting()
        # The first term is that of positive neurons. Only pixels have a second: negative ones that excite by negative
        # weights.
        return layer.share(terms if layer.is_first else terms[:1], relevance, epsilon=0.0)

    def factors(self, are_gates: tuple[bool, bool]) -> tuple[float, float] | None:
        """Both rules: one gate is a weight that is not negative, so the walk goes on to what it lets through."""
        return None if are_gates[0] == are_gates[1] else (float(are_gates[1]), float(are_gates[0]))

    def addends(self, addends: Sequence[Tensor], constant: Tensor | None, relevance: Tensor) -> Sequence[Tensor]:
        firing = [part(addend, 1) for addend in addends]
        shares = ratio(relevance, sum(firing[1:], firing[0]), 0.0)
        return [addend * shares for addend in firing]


class _SignedExcitation(_Excitation):
    """The rule of the published code: negative neurons and branches take part with their sign."""

    folds_batch_norm: ClassVar[bool] = False

    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        if layer.kind == "normalisation":
            return relevance
        return layer.share([(layer.x, layer.weights(1))], relevance, epsilon=0.0)

    def addends(self, addends: Sequence[Tensor], constant: Tensor | None, relevance: Tensor) -> Sequence[Tensor]:
        shares = ratio(relevance, sum(addends[1:], addends[0]), 0.0)
        return [addend * shares for addend in addends]
