"""Gradient x input (Shrikumar et al., 2016)."""

from __future__ import annotations

from torch import Tensor

from contrex.explain.explainer import InputExplainer


class GradientTimesInput(InputExplainer):
    """`sum_c x_c dS/dx_c`: each pixel's share of the linear model that the network is near the image.

    "Not Just a Black Box" (Shrikumar et al., 2016). The sum over the pixels is the score itself where the
    network is piecewise linear and has no biases; `FullGrad` adds what the biases hold.

    Deviation: pixels are those the model gets, so "no evidence" is a normalised zero, the mean colour of the data set.
    """

    name = "gradient_times_input"
    unit = "share of the {score}"

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Combine pixels and their gradient, `[N,C,H,W]` each, into the map `[N,H,W]`."""
        return (images * gradient).sum(1)
