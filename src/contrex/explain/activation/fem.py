"""FEM, the feature explanation method (Fuad et al., IPTA 2020)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.activation.classless import ClasslessExplainer
from contrex.explain.activation.score_cam import VARIANTS
from contrex.explain.options import About
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape
from contrex.settings import Variant


class FEM(ClasslessExplainer):
    """`sum_c m_c [A_c > m_c + k s_c]`, m and s the mean and the standard deviation of a channel over its cells.

    In each channel the rare, strong cells are kept (the k-sigma rule), and count as much as the channel is active. It
    looks at no class: no gradient, one forward pass, no contrast.

    `variant="published-code"` is `sum_c mean([A_c > m_c + k s_c]) A_c`, which pytorch-grad-cam computes under this
    name: channels, not cells, are weighted.

    Deviations: the paper's `>=` keeps all cells of a channel that is the same everywhere; here a cell must stand out by
    more than rounding, so such a channel counts nothing. Maps are not stretched to [0, 1].

    Raises:
        ArgumentError: `k` is negative.
        UnknownNameError: `variant` is not one of the two.
    """

    name = "fem"

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        k: float = 2.0,
        variant: Variant = "paper",
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        if not k >= 0:
            raise ArgumentError(f"`k` must be a number of standard deviations, 0 or more; got {k}.")
        if variant not in VARIANTS:
            raise unknown_name("`variant`", variant, VARIANTS)
        self._k, self._variant = k, variant

    def heatmap(self, activation: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`."""
        deviation, mean = torch.std_mean(activation, (2, 3), correction=0, keepdim=True)
        rounding = 10 * torch.finfo(activation.dtype).eps * activation.abs().amax((2, 3), keepdim=True)
        strong = (activation - mean > self._k * deviation + rounding).to(activation)
        weights, cells = (mean, strong) if self._variant == "paper" else (strong.mean((2, 3), keepdim=True), activation)
        broken = torch.zeros_like(activation).where(activation.isfinite(), torch.nan).sum((1, 2, 3))
        return (weights * cells).sum(1) + broken[:, None, None]
