"""LayerCAM (Jiang et al., IEEE Transactions on Image Processing 2021)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.explainer import ActivationExplainer


class LayerCAM(ActivationExplainer):
    """`sum_c relu(dS/dA_c) A_c`, cell by cell (section III).

    HiResCAM of the positive gradients only, which keeps the maps of early layers clean. Behind a ReLU no cell is
    negative; the evidence against a class appears in contrasts.

    Deviation: the paper stretches the maps of early layers by a tanh before it fuses several layers; that is a step of
    the fusion, and not done here.
    """

    name = "layer_cam"
    unit = "share of the {score}"
    is_linear = False

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation and its gradient, `[N,C,h,w]` each, into the map `[N,h,w]`."""
        return (gradient.relu() * activation).sum(1)
