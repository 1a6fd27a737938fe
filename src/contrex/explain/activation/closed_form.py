"""The gradient at a layer that is followed by global average pooling and one linear classifier only.

With `y = W mean_{hw}(A) + b` the gradient of any score is `dS/dA = W^T (dS/dy) / (h w)`, the same in every cell: no
inner backward pass, hence no double backward in training, and any number of classes for one matrix product. Grad-CAM
and the linear approximation (HiResCAM) coincide there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward.capture import FULL_PRECISION, Features, Pass


class LinearHead:
    """Gives `dS/dA`, in closed form where it holds and by autograd elsewhere.

    It holds where the logits of the very batch are the model's last linear layer of the pooled activation, and that
    layer's gradient has been found equal to autograd's - once for each layer that is explained, linear layer, and mode
    of the model's modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._verified: Verified | None = None

    def gradient(self, run: Pass, features: Features, rows: Tensor, *, differentiable: bool) -> Tensor:
        """`dS/dA` for the cotangents `rows` [N,M,K]: `[N,M,C,h,w]` or, in closed form, `[N,M,C,1,1]`."""
        linear = self.linear(run, features, rows)
        if linear is not None:
            return closed_form(linear, features.maps(features.output), rows)
        last = rows.shape[1] - 1
        gradients = [
            by_autograd(run, features, row, keep=index < last, differentiable=differentiable)
            for index, row in enumerate(rows.unbind(1))
        ]
        return torch.stack([features.maps(gradient) for gradient in gradients], 1)

    def linear(self, run: Pass, features: Features, rows: Tensor) -> nn.Linear | None:
        """The linear layer that makes the logits of this batch from the pooled activation, or None.

        It is believed once its closed form has given autograd's gradient for the first of the cotangents `rows`.
        """
        activation = features.maps(features.output)
        linear = self._fitting(run.logits, activation)
        if linear is None:
            return None
        case = Verified(linear, features.layer, tuple(module.training for module in self._model.modules()))
        if case != self._verified:
            expected = features.maps(by_autograd(run, features, rows[:, 0].detach(), keep=True, differentiable=False))
            self._verified = case if _agree(closed_form(linear, activation, rows[:, 0, None]), expected) else None
        return linear if case == self._verified else None

    def _fitting(self, logits: Tensor, activation: Tensor) -> nn.Linear | None:
        """The model's last linear layer from the activation's channels to the classes, if the logits are what it makes
        of the pooled activation - in this batch: a head may clip, or drop features in training."""
        shape = (logits.shape[1], activation.shape[1])
        linears = [m for m in self._model.modules() if isinstance(m, nn.Linear) and m.weight.shape == shape]
        if not linears:
            return None
        # Compared number by number, as no look at the modules tells what a `forward` does between pooling and logits.
        linear, dtype = linears[-1], logits.dtype
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            pooled = activation.to(dtype).mean((2, 3))
            made = F.linear(pooled, linear.weight.to(dtype))
            expected = made if linear.bias is None else made + linear.bias.to(dtype)
            # of each image, what may be lost to rounding: a share of what the linear layer makes of it, however small,
            # and the last digits of each logit, in which a large bias may be all there is
            tolerance = 1e-3 if activation.dtype in FULL_PRECISION else 5e-2
            digits = 4 * torch.finfo(activation.dtype).eps * expected.abs()
            fits = (logits - expected).abs() <= tolerance * made.abs().amax(1, keepdim=True) + digits
        return linear if bool(fits.all()) else None


class Verified(NamedTuple):
    """A case in which the closed form was seen to hold."""

    linear: nn.Linear
    layer: nn.Module | None
    modes: tuple[bool, ...]


def closed_form(linear: nn.Linear, activation: Tensor, rows: Tensor) -> Tensor:
    """The gradient `W^T (dS/dy) / (h w)`, [N,M,C,1,1] for rows [N,M,K]."""
    h, w = activation.shape[2:]
    with torch.autocast(rows.device.type, enabled=False):
        return (rows @ linear.weight.to(rows.dtype) / (h * w))[..., None, None]


def by_autograd(run: Pass, features: Features, row: Tensor, *, keep: bool, differentiable: bool) -> Tensor:
    """`dS/dA` of the shape of the layer's output, for one row [N,K] of cotangents."""
    (gradient,) = torch.autograd.grad(
        run.logits,
        features.output,
        row,
        retain_graph=keep or differentiable or run.is_shared,
        create_graph=differentiable,
        allow_unused=True,
    )
    if gradient is None:
        raise LayerError(
            f"the logits do not depend on what `layer` ({type(features.layer).__name__}) returns: the network goes on "
            "with its input, computes it again (gradient checkpointing), or has no use for it. Choose another layer."
        )
    return gradient


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Whether a closed-form gradient [N,1,C,1,1] is autograd's [N,C,h,w]; a zero gradient proves nothing."""
    # A wrong formula is off by far more than this; rounding of a sum over the classes by less.
    tolerance = 1e-5 if expected.dtype in FULL_PRECISION else 2e-2
    largest = expected.abs().max()
    difference = (found[:, 0].detach() - expected.to(found.dtype)).abs().max()
    return bool(largest > 0) and bool(difference <= tolerance * largest)
