"""Grad-CAM++ (Chattopadhay et al., WACV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.explain.explainer import ActivationExplainer


class GradCAMPlusPlus(ActivationExplainer):
    """`sum_c w_c A_c` with `w_c = sum_hw alpha relu(g)` and `alpha = g^2 / (2 g^2 + g^3 sum_hw A_c)` (equation 19).

    `g = dS/dA_c`. The paper derives alpha for `exp(S)`, a score without curvature behind the layer (ReLUs) and
    activations that are not negative; with others the denominator can vanish. Written as `1 / (2 + g sum_hw A_c)`, it
    keeps its value however small g is.

    Deviations: the factor `exp(S)` of every weight is left out: one positive number per map, which would overflow, and
    drown every class but the first in a contrast. The published code also divides alpha by its sum over the cells. The
    map is signed.
    """

    name = "grad_cam_plus_plus"
    is_linear = False

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        denominator = 2 + gradient * activation.sum((2, 3), keepdim=True)
        # 1 in place of 0 keeps the map finite; where the denominator is only near 0 the paper's formula is as unstable
        # as it is.
        alpha = denominator.masked_fill(denominator == 0, 1).reciprocal()
        weights = (alpha * gradient.relu()).expand_as(activation).sum((2, 3))
        return torch.einsum("nc,nchw->nhw", weights, activation)
