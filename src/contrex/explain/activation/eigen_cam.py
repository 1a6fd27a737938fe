"""Eigen-CAM (Muhammad and Yeasin, IJCNN 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.explain.activation.classless import ClasslessExplainer, finite_cells, turned


class EigenCAM(ClasslessExplainer):
    """`A v`: the activation `[hw,C]` projected on its first right singular vector (section III).

    It shows what the layer responds to most, whatever the class: no gradient, one forward pass, no contrast.

    Deviation: a singular vector has no sign of its own and the paper chooses none. Here the product of the map with the
    mean activation over the channels is positive; so behind a ReLU no cell is negative. Where the product is 0 but for
    rounding, as behind a layer norm without a scale, the largest cell is positive.
    """

    name = "eigen_cam"

    def heatmap(self, activation: Tensor) -> Tensor:
        """The first component `[N,h,w]` of an activation `[N,C,h,w]`."""
        return first_component(activation)


def first_component(activation: Tensor) -> Tensor:
    """The first principal component, not centred, of each activation `[N,C,h,w]`: `[N,h,w]`, NaN where that is not
    finite."""
    cells, finite = finite_cells(activation)
    left, singular, _ = torch.linalg.svd(cells, full_matrices=False)
    component = left[..., 0] * singular[:, :1]
    return turned(component, cells).where(finite, torch.nan).reshape(len(activation), *activation.shape[2:])
