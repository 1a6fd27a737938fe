"""Guided backpropagation (Springenberg et al., ICLR workshop 2015)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.input.relu_rule import ReLURuleExplainer


class GuidedBackprop(ReLURuleExplainer):
    """`sum_c R_c`, R the gradient `dS/dx` with a changed rule at each ReLU: `R_in = [x > 0] max(R_out, 0)`.

    Only positive evidence goes on, through active units (section 4, figure 1). What counts as a ReLU is
    told by `ReLURuleExplainer`.

    The rule is not linear in R, so a contrast is the difference of the maps of the classes. Deviation: the paper shows
    the colours of R; this is their sum. Sanity checks (Adebayo et al., 2018) find that the map hardly depends on the
    class or the upper layers' weights.
    """

    name = "guided_backprop"
    unit = "slope of the {score}"

    def rule(self, sent: Tensor, received: Tensor) -> Tensor:
        """What a ReLU sends back: `[x > 0] max(R_out, 0)`."""
        return sent.clamp(min=0)
