"""What gradient arrives at the layers of an observed pass, and how much of it flows past one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from contrex.explain.forward.capture import Run
from contrex.explain.forward.observed import Observed
from contrex.models.graph import Edge, as_gradient_edge
from contrex.models.reading import Reading

_ROUNDING = 1e-4
"""Gradients are equal if they differ by less than this share of the largest."""


class Gradients:
    """Gradients of weighted logits of an observed pass, all with the same weights."""

    def __init__(self, seen: Observed) -> None:
        self._logits, self._images = seen.logits, seen.images

    @cached_property
    def _cotangent(self) -> Tensor:
        """Weights for all classes, the same in each call: what one logit's gradient misses the others' show."""
        # A generator of its own, on the CPU and in float64: which layer is found depends neither on chance nor on the
        # device, and the caller's random state is not used up.
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(self._logits.shape[1], generator=generator, device="cpu", dtype=torch.float64)
        return weights.to(self._logits).expand_as(self._logits)

    def arriving(self, edges: Sequence[Edge]) -> dict[Edge, Tensor]:
        """The gradients that arrive at edges of the graph, by one backward pass."""
        wanted = list(dict.fromkeys(edges))
        found = torch.autograd.grad(
            self._logits, [as_gradient_edge(e) for e in wanted], self._cotangent, retain_graph=True, allow_unused=True
        )
        return {edge: gradient for edge, gradient in zip(wanted, found, strict=True) if gradient is not None}

    def share_past(self, edge: Edge) -> float:
        """`|d y / d x with the layer's output detached| / |d y / d x|`: how much of the gradient flows past it."""

        def arriving() -> float:
            (gradient,) = torch.autograd.grad(
                self._logits, self._images, self._cotangent, retain_graph=True, allow_unused=True
            )
            return 0.0 if gradient is None else float(gradient.norm())

        node, place = edge
        whole = arriving()
        # A hook on the node of the graph, for one backward pass: what arrives there from the logits goes no further.
        handle = node.register_prehook(
            lambda given: tuple(
                torch.zeros_like(one) if index == place and one is not None else one for index, one in enumerate(given)
            )
        )
        try:
            return arriving() / whole if whole else 0.0
        finally:
            handle.remove()

    def pass_beside_cells_only(self, run: Run, reading: Reading, known: dict[Edge, Tensor]) -> bool:
        """Whether all that flows past a layer, from its output to its input, is in the tokens without a place; `known`
        are the gradients that arrive at both."""
        at_output, at_source = gradient_at(known, run.edge), gradient_at(known, run.source)
        if at_output is None or at_source is None or run.edge is None or run.source is None:
            return False
        # What comes down through the layer itself; the rest of what arrives at its input has flown past it.
        (through,) = torch.autograd.grad(
            as_gradient_edge(run.edge), as_gradient_edge(run.source), at_output, retain_graph=True
        )
        past = reading(at_source - through).abs().max()
        return bool(past <= _ROUNDING * reading(through).abs().max())


def gradient_at(known: dict[Edge, Tensor], edge: Edge | None) -> Tensor | None:
    """The gradient that arrives at an edge; None where there is none."""
    return None if edge is None else known.get(edge)


def edges_of(run: Run) -> list[Edge]:
    """Where the output of a layer and its input are in the graph."""
    return [edge for edge in (run.edge, run.source) if edge is not None]
