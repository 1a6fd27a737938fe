"""Methods that change what ReLUs send back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from contrex.explain.explainer import InputExplainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.in_place import beside_views, written


class ReLURuleExplainer(InputExplainer):
    """The gradient at the pixels, summed over the colours, with another rule at each ReLU.

    ReLUs are found in the graph of the pass: modules, functions, in-place, through a view (`x[:, :4].relu_()`), and in
    traced parts. ReLU6 counts, and so does any hardtanh, clamp or threshold that clips at the number 0. Others that act
    like one do not: LeakyReLU, `torch.maximum(x, zeros)`, `torch.where(x > 0, x, 0)`, `x * (x > 0)`; they go back as in
    a gradient.

    Raises:
        LayerError: there is no ReLU, or a part of the graph hides what it runs: `torch.compile`, scripted parts,
            reentrant checkpointing, autograd functions of the model's own.
    """

    is_linear = False
    is_differentiable = False

    @abstractmethod
    def rule(self, sent: Tensor, received: Tensor) -> Tensor:
        """What a ReLU sends back, from what it would send and what it received."""

    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Pixels and what arrives there `[N,C,H,W]` to `[N,H,W]`."""
        return gradient.sum(1)

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        copies: list[Node | None] = []

        def record(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            output, target = function(*args, **kwargs), written(function, args, kwargs)
            if target is not None:  # the node of all that shares its memory
                copies.append(target.grad_fn if target._base is None else target._base.grad_fn)
            return output

        with capture.intercepted(beside_views(record)):
            run = super()._forward(images, differentiable=differentiable)
        capture.change_relu_rule(run.logits, self.rule, copies)
        return run
