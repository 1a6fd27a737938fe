"""Relevance propagation: a backward pass that shares relevance out by rules instead of differentiating."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.explainer import LayerExplainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.functions import intercepted
from contrex.explain.options import About
from contrex.explain.propagation.graph import Propagation, innermost_module
from contrex.explain.propagation.linear_maps import Trace
from contrex.explain.propagation.rules import NoRuleError, Rules
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape, Site
from contrex.ops.likeness import differ, rounding_scale
from contrex.ops.scores import Question

_CHECKPOINTED = "activation checkpointing runs functions again, without their rules"


@dataclass(frozen=True, eq=False, kw_only=True)
class RelevancePass(Pass):
    """A pass whose backward pass propagates relevance, and the output of a layer `watched` beside those explained."""

    trace: Trace
    watched: Tensor | None = None


class RelevanceExplainer(LayerExplainer):
    """Methods that propagate relevance from the logits to a layer or to the images.

    The map is the relevance summed over channels. `layer` is that of `LayerExplainer`, or `"input"`, the images.
    """

    is_differentiable = False
    ranks = (1, 2, 3)

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        self._is_at_input = isinstance(layer, str) and layer == "input"
        super().__init__(model, None if self._is_at_input else layer, reshape=reshape, **about)

    @property
    def layer(self) -> str | None:
        """The name of the explained layer, `"input"` for the images; None until the first call has found it."""
        return "input" if self._is_at_input else super().layer

    @abstractmethod
    def _rules(self) -> Rules:
        """The rules by which this method shares relevance out."""

    @abstractmethod
    def _start(self, run: Pass, row: Tensor) -> Tensor:
        """The relevance `[N,K]` of the logits for one row `[N,K]` of the question's cotangents."""

    def _forward(self, images: Tensor, *, differentiable: bool) -> RelevancePass:
        return self._run(images, [] if self._is_at_input else self._found_sites(images), graph="head")

    def _run(
        self, images: Tensor, layers: Sequence[Site], *, graph: str, watched: nn.Module | None = None
    ) -> RelevancePass:
        seen: list[Tensor] = []

        def see(module: nn.Module, output: object) -> None:
            if isinstance(output, Tensor):
                seen.append(propagation.current(output))

        beside = [] if watched is None else [watched]
        with capture.undisturbed(self.model, images.device):  # so that both passes draw the same random numbers
            own = capture.forward(self.model, images.detach(), (), graph="none").logits
        propagation = Propagation(self.model, self._rules(), is_at_input=not layers)
        try:
            with (
                capture.exchanged([site.module for site in layers], propagation.current),
                capture.watched(beside, see),
                intercepted(propagation),
                # Checkpointing works by these hooks. It would run functions again in the backward pass, where no rule
                # is set: an error instead.
                torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINTED),
            ):
                run = capture.forward(self.model, images.detach(), layers, graph=graph)
            propagation.check(run.logits)
        except (NoRuleError, RuntimeError) as error:
            if not isinstance(error, NoRuleError) and str(error) != _CHECKPOINTED:
                raise
            raise LayerError(
                f"{type(self).__name__} cannot explain {type(self.model).__name__}: {error}, in "
                f"{innermost_module(error, self.model)}. Explain a `layer` behind it, or use a gradient method."
            ) from None
        self._check_logits(run.logits.detach(), own)
        return RelevancePass(
            run.images, run.logits, run.features, trace=propagation.trace, watched=seen[0] if len(seen) == 1 else None
        )

    def _check_logits(self, found: Tensor, own: Tensor) -> None:
        """Refuse a pass that is not the model's own: half of the digits that its numbers have must agree."""
        far = differ(found, own, capture.resolution(self.model, own) ** 0.5)
        if bool(far.any()):
            index = int(far.nonzero()[0])
            difference = float((found - own)[index].abs().nan_to_num(0.0).max())
            largest = float(rounding_scale(own)[index].min())
            raise LayerError(
                f"{type(self).__name__} cannot explain {type(self.model).__name__}: in the pass that it follows, the "
                f"logits of image {index} differ from the model's own by {difference:.3g} of "
                f"{largest:.3g}. Write what the model changes in place out of place, explain a `layer` "
                "behind it, or use a gradient method."
            )

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        maps = []
        for row in question.cotangents(run.logits).unbind(1):
            relevance = self._relevance(run, row)
            maps.append(features.maps(relevance).to(row.dtype).sum(1))
        return torch.stack(maps, 1)

    def _relevance(self, run: Pass, row: Tensor) -> Tensor:
        """The relevance of the explained layer's output for one row `[N,K]` of cotangents."""
        return propagated(run.logits, run.features[0].output, self._start(run, row))


def propagated(output: Tensor, source: Tensor, relevance: Tensor) -> Tensor:
    """The relevance of `source` when `output` has `relevance`."""
    (found,) = torch.autograd.grad(output, source, relevance, retain_graph=True, allow_unused=True)
    if found is None:
        raise LayerError(
            "the classifier does not depend on `layer`: choose another one, or a `contrast_layer` behind it."
        )
    return found
