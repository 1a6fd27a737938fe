"""Guided backpropagation (Springenberg et al., ICLR workshop 2015)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain import capture
from contrex.explain.capture import Pass
from contrex.explain.explainer import InputExplainer


class GuidedBackprop(InputExplainer):
    """`sum_c R_c`, R the gradient `dS/dx` with a changed rule at each ReLU: `R_in = [x > 0] max(R_out, 0)`.

    Only positive evidence goes on, through active units (section 4, figure 1). ReLUs are found in the graph of the
    pass: modules, functions, in-place, and ReLU6.

    The rule is not linear in R, so a contrast is the difference of the maps of the classes. Deviation: the paper shows
    the colours of R; this is their sum. Sanity checks (Adebayo et al., 2018) find that the map hardly depends on the
    class or the upper layers' weights.
    """

    is_linear = False
    is_differentiable = False

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Pixels and what arrives there `[N,C,H,W]` to `[N,H,W]`."""
        return gradient.sum(1)

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        run = super()._forward(images, differentiable=differentiable)
        capture.change_relu_rule(run.logits, lambda sent, received: sent.clamp(min=0))
        return run
