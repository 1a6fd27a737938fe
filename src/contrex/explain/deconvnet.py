"""Deconvolutional networks (Zeiler and Fergus, ECCV 2014)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain import capture
from contrex.explain.capture import Pass
from contrex.explain.explainer import InputExplainer


class Deconvnet(InputExplainer):
    """`sum_c R_c`, R the gradient `dS/dx` with a changed rule at each ReLU: `R_in = max(R_out, 0)`.

    The ReLU is applied to what comes back, whatever the unit did on the way forward (section 2.1; max pooling goes back
    through its switches, as a gradient does). ReLUs are found in the graph of the pass: modules, functions, in-place,
    and ReLU6.

    The rule is not linear in R, so a contrast is the difference of the maps of the classes. Deviations: the paper
    starts at a feature map's strongest unit, this starts at the score; batch norm, which the paper's networks lack,
    goes back as in a gradient; the sum over colours is shown.
    """

    is_linear = False
    is_differentiable = False

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Pixels and what arrives there `[N,C,H,W]` to `[N,H,W]`."""
        return gradient.sum(1)

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        run = super()._forward(images, differentiable=differentiable)
        capture.change_relu_rule(run.logits, lambda sent, received: received.clamp(min=0))
        return run
