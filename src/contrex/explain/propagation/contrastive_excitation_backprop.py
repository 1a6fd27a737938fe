"""Contrastive excitation backprop, cMWP (Zhang et al., ECCV 2016, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About
from contrex.explain.propagation.excitation_backprop import ExcitationBackprop
from contrex.explain.propagation.explainer import RelevancePass, propagated
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site, find_layer
from contrex.settings import Variant


class ContrastiveExcitationBackprop(ExcitationBackprop):
    """Excitation backprop from the class minus that from its dual, the class with the sign of its weights flipped.

    Both go to the contrast layer, where each is normalised to sum 1 and the dual subtracted; the difference goes on to
    `layer`. The paper keeps its positive part (`Explanation.positive()`).

    `contrast_layer` is by default the input of the last layer with weights: the average pooling of a ResNet. `layer`
    and `variant` are those of `ExcitationBackprop`.

    Not linear in the score (each class is normalised by itself), so a contrast is the difference of the classes' maps.
    """

    name = "contrastive_excitation_backprop"
    unit = "share of the evidence"
    is_linear = False

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        contrast_layer: Layer = None,
        variant: Variant = "paper",
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, variant=variant, reshape=reshape, **about)
        self._contrast_layer = None if contrast_layer is None else find_layer(self.model, contrast_layer)

    def _run(
        self, images: Tensor, layers: Sequence[Site], *, graph: str, watched: nn.Module | None = None
    ) -> RelevancePass:
        return super()._run(images, layers, graph=graph, watched=watched or self._contrast_layer)

    def _relevance(self, run: Pass, row: Tensor) -> Tensor:
        """The relevance for one row; one of both signs (a probability) is the difference of two mixtures of classes."""
        relevance = self._contrasted(run, row.clamp(min=0))
        return relevance - self._contrasted(run, -row.clamp(max=0)) if bool((row < 0).any()) else relevance

    def _contrasted(self, run: Pass, start: Tensor) -> Tensor:
        assert isinstance(run, RelevancePass)
        at, classifier = self._contrast_point(run), run.trace.classifier
        signals = []
        for is_flipped in (False, True):
            # The rule of the classifier looks at this flag when it runs, so one graph serves the class and its dual.
            classifier.is_flipped = is_flipped
            signals.append(_normalised(propagated(run.logits, at, start)))
        classifier.is_flipped = False
        # Each signal was normalised to 1; a mixture of classes starts with more or less than that.
        mass = start.sum(1).view(-1, *[1] * (at.ndim - 1))
        return propagated(at, run.features[0].output, mass * (signals[0] - signals[1]))

    def _contrast_point(self, run: RelevancePass) -> Tensor:
        point = run.trace.classifier_input if self._contrast_layer is None else run.watched
        if point is None or not point.requires_grad:
            name = next((n for n, m in self.model.named_modules() if m is self._contrast_layer), None)
            raise LayerError(
                f"`contrast_layer` must run once between `layer` {self.layer!r} and the logits, got {name!r}: choose "
                "one behind it, or an earlier `layer`."
            )
        return point


def _normalised(relevance: Tensor) -> Tensor:
    """Relevance scaled to the sum 1 for each image; zeros stay."""
    total = relevance.sum(tuple(range(1, relevance.ndim)), keepdim=True)
    return torch.where(total == 0, 0.0, relevance / torch.where(total == 0, 1.0, total))
