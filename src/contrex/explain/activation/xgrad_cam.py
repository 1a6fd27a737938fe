"""XGrad-CAM (Fu et al., BMVC 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.explain.explainer import ActivationExplainer


class XGradCAM(ActivationExplainer):
    """`sum_c w_c A_c` with `w_c = sum_hw A_c dS/dA_c / sum_hw A_c`: gradients weighted by activation (section 3).

    The map sums to `sum A dS/dA`, as HiResCAM's does; it is Grad-CAM's where the gradient is the same in every cell. A
    channel whose activation sums to zero, up to rounding, weighs nothing.

    Deviations: the published code adds 1e-6 to the denominator; the map is signed.
    """

    name = "xgrad_cam"
    unit = "share of the {score}"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        total = activation.sum((2, 3))
        rounding = 10 * torch.finfo(total.dtype).eps * activation.abs().sum((2, 3))
        nothing = total.abs() <= rounding
        weights = (activation * gradient).sum((2, 3)) / total.masked_fill(nothing, 1)
        return torch.einsum("nc,nchw->nhw", weights.masked_fill(nothing, 0), activation)
