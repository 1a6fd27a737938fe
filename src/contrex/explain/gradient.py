"""Input gradients (Simonyan et al., 2014)."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import grad

from contrex.explain import capture
from contrex.explain.explainer import Explainer


class Gradient(Explainer):
    """`sum_c dS/dx_c` over the colour channels: the first-order effect on the score of brightening a pixel.

    Deviation: the paper shows `max_c |dS/dx_c|` (section 3). That is not linear in the score, so contrasts would not be
    differences of explanations; the signed sum is.
    """

    def _forward(self, images: Tensor, *, differentiable: bool) -> capture.Pass:
        return capture.forward(self.model, images, None, graph="all" if differentiable else "head")

    def _heatmap(self, run: capture.Pass, cotangent: Tensor, *, differentiable: bool) -> Tensor:
        (gradient,) = grad(run.logits, run.activation, cotangent, create_graph=differentiable)
        return gradient.to(cotangent.dtype).sum(1)
