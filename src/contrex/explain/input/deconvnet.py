"""Deconvolutional networks (Zeiler and Fergus, ECCV 2014)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.input.relu_rule import ReLURuleExplainer


class Deconvnet(ReLURuleExplainer):
    """`sum_c R_c`, R the gradient `dS/dx` with a changed rule at each ReLU: `R_in = max(R_out, 0)`.

    The ReLU is applied to what comes back, whatever the unit did on the way forward (section 2.1; max pooling goes back
    through its switches, as a gradient does). What counts as a ReLU is told by `ReLURuleExplainer`.

    The rule is not linear in R, so a contrast is the difference of the maps of the classes. Deviations: the paper
    starts at a feature map's strongest unit, this starts at the score; batch norm, which the paper's networks lack,
    goes back as in a gradient; the sum over colours is shown.
    """

    name = "deconvnet"
    unit = "slope of the {score}"

    def rule(self, sent: Tensor, received: Tensor) -> Tensor:
        """What a ReLU sends back: `max(R_out, 0)`."""
        return received.clamp(min=0)
