"""The gradient at a layer that is followed by global average pooling and one linear classifier only.

With `y = W mean_{hw}(A) + b` the gradient of any score is `dS/dA = W^T (dS/dy) / (h w)`, the same in every cell: no
inner backward pass, hence no double backward in training, and maps that work under every wrapper. Grad-CAM and the
linear approximation (HiResCAM) coincide there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.capture import Pass

FULL_PRECISION = (torch.float32, torch.float64)

State = tuple[nn.Module | None, tuple[bool, ...]]
"""The linear layer and every module's mode: what a proof of the closed form is about."""


class LinearHead:
    """Gives `dS/dA`: by autograd, until a first batch has shown that the closed form is the same.

    The proof holds for one network in one state: it is redone when the linear layer is exchanged or a module changes
    its mode (dropout between pooling and classifier breaks the form in training).
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._name: str | None = None
        self._verdicts: dict[State, bool] = {}

    def is_known(self) -> bool:
        """Whether the closed form is proven for the model as it is now, so that no graph is needed."""
        return self._verdicts.get(self._state(), False)

    def fits(self, run: Pass) -> bool:
        """Whether this batch's logits are the linear layer of the pooled activation.

        A head that clips, say, may look linear on the first batch and not on this one; then the proof is withdrawn.
        """
        linear, dtype = self._linear(), run.logits.dtype
        with torch.no_grad(), torch.autocast(run.logits.device.type, enabled=False):
            bias = None if linear.bias is None else linear.bias.to(dtype)
            expected = F.linear(run.activation.to(dtype).mean((2, 3)), linear.weight.to(dtype), bias)
            difference = (run.logits - expected).abs().max()
        tolerance = 1e-3 if run.activation.dtype in FULL_PRECISION else 5e-2
        holds = bool(difference <= tolerance * (1 + expected.abs().max()))
        self._verdicts[self._state()] = holds
        return holds

    def gradient(self, run: Pass, cotangent: Tensor, *, differentiable: bool) -> Tensor:
        """`dS/dA`, `[N,C,h,w]` or, in closed form, `[N,C,1,1]`."""
        if self._state() not in self._verdicts:
            self._name = self._find(run)
            self._verdicts[self._state()] = self._name is not None and self._agrees(run, cotangent)
        if self.is_known():
            return self._closed_form(run, cotangent)
        (gradient,) = torch.autograd.grad(run.logits, run.activation, cotangent, create_graph=differentiable)
        return gradient

    def _closed_form(self, run: Pass, cotangent: Tensor) -> Tensor:
        weight = self._linear().weight.to(cotangent.dtype)
        h, w = run.activation.shape[2:]
        with torch.autocast(weight.device.type, enabled=False):
            return (cotangent @ weight / (h * w))[:, :, None, None]

    def _agrees(self, run: Pass, cotangent: Tensor) -> bool:
        """Whether the closed form gives what autograd gives for this batch; the graph is left for later."""
        (gradient,) = torch.autograd.grad(run.logits, run.activation, cotangent.detach(), retain_graph=True)
        expected = gradient.to(cotangent.dtype)
        tolerance = 1e-5 if run.activation.dtype in FULL_PRECISION else 2e-2
        difference = (self._closed_form(run, cotangent).detach() - expected).abs().max()
        return bool(expected.abs().max() > 0) and bool(difference <= tolerance * expected.abs().max())

    def _find(self, run: Pass) -> str | None:
        """The last linear layer from the activation's channels to the classes."""
        shape = (run.logits.shape[1], run.activation.shape[1])
        names = [
            name for name, m in self._model.named_modules() if isinstance(m, nn.Linear) and m.weight.shape == shape
        ]
        return names[-1] if names else None

    def _module(self) -> nn.Module | None:
        try:
            return None if self._name is None else self._model.get_submodule(self._name)
        except AttributeError:
            return None

    def _linear(self) -> nn.Linear:
        module = self._module()
        if not isinstance(module, nn.Linear):
            raise LayerError(f"the classifier {self._name!r} was removed from the model: make a new explainer.")
        return module

    def _state(self) -> State:
        return self._module(), tuple(module.training for module in self._model.modules())
