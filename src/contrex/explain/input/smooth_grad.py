"""SmoothGrad (Smilkov et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain.input.averaged_gradient import AveragedGradient
from contrex.explain.options import About
from contrex.models.classifier import Classifier


class SmoothGrad(AveragedGradient):
    """`1/n sum_i sum_c dS/dx_c (x + e_i)`: the mean gradient over `n = num_samples` noisy copies (section 2.2).

    The noise is Gaussian; its standard deviation is `noise` times the image's range `max(x) - min(x)` (section
    3.2: 10 to 20 %, and little gain beyond 50 samples). It is drawn from `seed`, alike for every image and every call.

    Deviation: signed, as `Gradient`; the paper shows the absolute value.
    """

    name = "smooth_grad"
    unit = "slope of the {score}"

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        num_samples: int = 50,
        noise: float = 0.15,
        seed: int = 0,
        batch_size: int | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, batch_size=batch_size, **about)
        if num_samples < 1:
            raise ArgumentError(f"`num_samples` must be at least 1 noisy copy, got {num_samples}.")
        if noise < 0:
            raise ArgumentError(f"`noise` must be a share of the image's range, 0 or more; got {noise}.")
        self._num_samples, self._noise, self._seed = num_samples, noise, seed

    def copies(self, images: Tensor, baseline: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Give n times a weight, 1/n, and a noisy copy `[N,C,H,W]`."""
        # For each call anew, of the shape of one image and on the CPU: so noise depends neither on the batch nor on the
        # device.
        generator = torch.Generator("cpu").manual_seed(self._seed)
        low, high = images.detach().flatten(1).aminmax(dim=1)
        deviation = (self._noise * (high - low)).view(-1, *[1] * (images.ndim - 1))
        for _ in range(self._num_samples):
            noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
            yield 1 / self._num_samples, images + deviation * noise.to(images)

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Combine pixels and the mean gradient, `[N,C,H,W]` each, into the map `[N,H,W]`."""
        return gradient.sum(1)
