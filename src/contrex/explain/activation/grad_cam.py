"""Grad-CAM (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.explain.explainer import ActivationExplainer


class GradCAM(ActivationExplainer):
    """`sum_c w_c A_c` with pooled gradients `w_c = mean_{hw} dS/dA_c` (section 3, eq. 1 and 2).

    Deviation: the map is signed, the paper's ReLU is `Explanation.positive()`; contrasts need both signs.
    """

    name = "grad_cam"
    unit = "share of the {score}"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        return torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), activation)
