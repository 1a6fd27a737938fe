"""Contrastive excitation backprop, cMWP (Zhang et al., ECCV 2016, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from contrex.errors import LayerError
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About
from contrex.explain.propagation.call import is_rule
from contrex.explain.propagation.excitation_backprop import ExcitationBackprop
from contrex.explain.propagation.explainer import RelevancePass, propagated
from contrex.explain.propagation.linear_maps import WITH_WEIGHTS, Mapped
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site, find_layer
from contrex.settings import Variant


class ContrastiveExcitationBackprop(ExcitationBackprop):
    """Excitation backprop from the class minus that from its dual, the class with the sign of its weights flipped.

    Both go to the contrast layer, where each is normalised to sum 1 and the dual subtracted; the difference goes on to
    `layer`. The paper keeps its positive part (`Explanation.positive()`).

    `contrast_layer` is by default the input of the classifier, the last layer with weights on the way to the logits:
    the average pooling of a ResNet. `layer` and `variant` are those of `ExcitationBackprop`.

    Not linear in the score (each class is normalised by itself), so a contrast is the difference of the classes' maps.

    Raises:
        LayerError: as `ExcitationBackprop`, and where several layers are added up to the logits.
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
        watched = None if self._contrast_layer is None else self._watched(run)
        classifiers = self._classifiers(run, watched)
        at = classifiers[0].source if watched is None else watched
        signals = []
        for flipped in ((), [one.layer for one in classifiers]):
            # The rules of the classifiers look at these when they run, so one graph serves the class and its dual.
            run.trace.classifier.flipped = flipped
            signals.append(_normalised(propagated(run.logits, at, start)))
        run.trace.classifier.flipped = ()
        # Each signal was normalised to 1; a mixture of classes starts with more or less than that.
        mass = start.sum(1).view(-1, *[1] * (at.ndim - 1))
        return propagated(at, run.features[0].output, mass * (signals[0] - signals[1]))

    def _watched(self, run: RelevancePass) -> Tensor:
        """The output of the contrast layer."""
        if run.watched is None or not run.watched.requires_grad:
            name = next((n for n, m in self.model.named_modules() if m is self._contrast_layer), None)
            raise LayerError(
                f"`contrast_layer` must run once between `layer` {self.layer!r} and the logits, got {name!r}: choose "
                "one behind it, or an earlier `layer`."
            )
        return run.watched

    def _classifiers(self, run: RelevancePass, watched: Tensor | None) -> list[Mapped]:
        """The last layers with weights on each path from the logits: nearly always one, or several whose outputs are
        joined.

        Raises:
            LayerError: there are none, a path leads past them, or their outputs are added or averaged, so that no sign
                of weights makes the dual of a class.
        """
        end = run.features[0].output if watched is None else watched
        found, is_passed, shares = _last_layers(run, get_gradient_edge(end).node)
        names = sorted(repr(one.layer.name) for one in found)
        kind, point = type(self.model).__name__, "layer" if watched is None else "contrast_layer"
        if is_passed or not found:
            raise LayerError(
                f"the classifier of {kind}, its last layer with weights ({', '.join(names) or 'none'}), must have all "
                f"that comes from `{point}` to the logits: choose an earlier `layer` or `contrast_layer`, or "
                "ExcitationBackprop."
            )
        if len(found) > 1 and shares:
            raise LayerError(
                f"the logits of {kind} are sums or averages of the layers {', '.join(names)}, so a class has no dual "
                "with flipped weights: make one layer of them, or use ExcitationBackprop."
            )
        if watched is None and any(one.source is not found[0].source for one in found):
            raise LayerError(
                f"the layers {', '.join(names)} give logits of {kind}, each of an input of its own: pass "
                "`contrast_layer`, one that all of it goes through."
            )
        return found


def _last_layers(run: RelevancePass, end: Node) -> tuple[list[Mapped], bool, bool]:
    """The last layers with weights before `end` on the paths from the logits, whether a path leads past them to it, and
    whether on the way to them something shares relevance out by values: a sum or an average."""
    of_node = {one.node: one for one in run.trace.maps}
    waiting: list[Node | None] = [run.logits.grad_fn]
    seen, found, is_passed, shares = set(waiting), list[Mapped](), False, False
    while waiting:
        node = waiting.pop()
        mapped = of_node.get(node)
        if node is end:
            is_passed = True
        elif mapped is not None and mapped.layer.kind in WITH_WEIGHTS:
            found.append(mapped)
        elif node is not None:
            behind = {one for one, _ in node.next_functions if one is not None}
            shares = shares or mapped is not None or (len(behind) > 1 and is_rule(node))
            waiting += behind - seen
            seen |= behind
    return found, is_passed, shares


def _normalised(relevance: Tensor) -> Tensor:
    """Relevance scaled to the sum 1 for each image; zeros stay."""
    total = relevance.sum(tuple(range(1, relevance.ndim)), keepdim=True)
    return torch.where(total == 0, 0.0, relevance / torch.where(total == 0, 1.0, total))
