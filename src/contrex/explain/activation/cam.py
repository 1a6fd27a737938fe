"""CAM (Zhou et al., CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import LayerError
from contrex.explain.explainer import ActivationExplainer


class CAM(ActivationExplainer):
    """`sum_c W_tc A_c` with the classifier's own weights W (section 2, equation 2).

    It exists only where global average pooling and one linear layer follow the layer. There it is `h w` times Grad-CAM
    and HiResCAM, and its mean over the cells plus the bias is the logit. The scale is the paper's.

    Deviation: a contrast takes the contrasted row of W, a probability its gradient times W; the paper has the logit.

    Raises:
        LayerError: something else follows the layer.
    """

    name = "cam"
    unit = "{score} at a cell"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Combine an activation `[N,C,h,w]` and `W^T (dS/dy) / (h w)` `[N,C,1,1]` into the map `[N,h,w]`."""
        height, width = activation.shape[2:]
        if gradient.shape[2:] != (1, 1) and bool(gradient.any()):  # the gradient of a head that is not linear
            raise LayerError(
                "CAM needs global average pooling, one linear layer and no active dropout behind `layer`, and nothing "
                f"else; in {type(self.model).__name__} something else follows: choose the last feature map, or GradCAM."
            )
        return torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)) * height * width, activation)
