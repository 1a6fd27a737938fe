"""HiResCAM (Draelos and Carin, 2020), which the contrast paper calls linear approximation."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.explainer import ActivationExplainer


class HiResCAM(ActivationExplainer):
    """`sum_c (dS/dA)_c * A_c`, element by element, without pooling the gradients.

    The "linear approximation" of "Why Not Other Classes?" (NeurIPS 2022, section 4; its code takes the mean over
    channels, only a scale), and what the CGC code calls Grad-CAM. Equal to `GradCAM` where global average pooling and a
    linear layer follow; different elsewhere.
    """

    name = "hires_cam"
    unit = "share of the {score}"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        return (activation * gradient).sum(1)
