"""KPCA-CAM, a kernel principal component of the activations (Karmani et al., MMSP 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.activation.classless import ClasslessExplainer, finite_cells, turned
from contrex.explain.options import About
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape

_EXACT = "donot_use_mm_for_euclid_dist"
"""Distances from differences: from products of matrices, small ones would be lost to rounding."""
Kernel = Literal["sigmoid", "rbf", "polynomial", "linear"]
KERNELS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "sigmoid": lambda cells, gamma: torch.tanh(gamma * cells @ cells.mT + 1),
    "rbf": lambda cells, gamma: torch.exp(-gamma * torch.cdist(cells, cells, compute_mode=_EXACT).square()),
    "polynomial": lambda cells, gamma: (gamma * cells @ cells.mT + 1) ** 3,
    "linear": lambda cells, gamma: cells @ cells.mT,
}
"""Of cells `[N,hw,C]` the kernel `[N,hw,hw]`, with gamma, and the constants that scikit-learn has."""


class KPCACAM(ClasslessExplainer):
    """`sqrt(l) v`: each cell's coordinate on the first kernel principal component of all cells (section III).

    l and v are the largest eigenvalue and its vector of the centred kernel matrix `[hw,hw]` of the cells, from each of
    whose channels its mean is taken; the kernel is `tanh(gamma x y + 1)`, and others. `gamma=None` is 1 / C.

    It shows what differs most among the cells, whatever the class: no gradient, no contrast. Its cells add up to 0, so
    unlike Eigen-CAM's it has both signs. `kernel="linear"` is Eigen-CAM of centred activations.

    Deviation: the sign of a component is free, and the paper's code keeps that of the decomposition, then drops the
    negative cells. Here it is Eigen-CAM's rule: the product with the mean activation over the channels is positive.

    Raises:
        UnknownNameError: there is no such kernel.
        ArgumentError: `gamma` is not above 0.
    """

    name = "kpca_cam"

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        kernel: Kernel = "sigmoid",
        gamma: float | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        if kernel not in KERNELS:
            raise unknown_name("`kernel`", kernel, KERNELS)
        if gamma is not None and not gamma > 0:
            raise ArgumentError(f"`gamma` must be above 0, or None for 1 / channels; got {gamma}.")
        self._kernel, self._gamma = kernel, gamma

    def heatmap(self, activation: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`."""
        cells, finite = finite_cells(activation)
        gamma = 1 / activation.shape[1] if self._gamma is None else self._gamma
        kernel = KERNELS[self._kernel](cells - cells.mean(1, keepdim=True), gamma)
        rows = kernel.mean(2, keepdim=True)
        values, vectors = torch.linalg.eigh(kernel - rows - rows.mT + rows.mean(1, keepdim=True))
        component = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
        return turned(component, cells).where(finite, torch.nan).reshape(len(activation), *activation.shape[2:])
