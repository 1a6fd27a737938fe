"""Input gradients (Simonyan et al., 2014)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.explainer import InputExplainer


class Gradient(InputExplainer):
    """`sum_c dS/dx_c` over the colour channels: the first-order effect on the score of brightening a pixel.

    Deviation: the paper shows `max_c |dS/dx_c|` (section 3). That is not linear in the score, so contrasts would not be
    differences of explanations; the signed sum is.
    """

    name = "gradient"
    unit = "slope of the {score}"

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Combine pixels and their gradient, `[N,C,H,W]` each, into the map `[N,H,W]`."""
        return gradient.sum(1)
