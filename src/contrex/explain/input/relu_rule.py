"""Methods that change what ReLUs send back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from contrex.errors import LayerError
from contrex.explain.explainer import InputExplainer
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.diagnosis import graph_nodes
from contrex.explain.forward.functions import intercepted
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
        """Combine pixels and what arrives there, `[N,C,H,W]` each, into the map `[N,H,W]`."""
        return gradient.sum(1)

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        copies: list[Node | None] = []

        def record(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            output, target = function(*args, **kwargs), written(function, args, kwargs)
            if target is not None:  # the node of all that shares its memory
                copies.append(target.grad_fn if target._base is None else target._base.grad_fn)
            return output

        with intercepted(beside_views(record)):
            run = super()._forward(images, differentiable=differentiable)
        change_relu_rule(run.logits, self.rule, copies)
        return run


def change_relu_rule(logits: Tensor, rule: Callable[[Tensor, Tensor], Tensor], copies: Sequence[Node | None]) -> None:
    """Let every ReLU in the graph behind `logits` send back `rule(gradient it would send, gradient it received)`.

    The rule is set in the graph of this one pass, not in the model, and goes with it; so modules, functions and
    in-place ReLUs are caught alike. ReLU6 counts, and so does any hardtanh, clamp or threshold that clips at the number
    0. Nodes that stand for some function on part of a tensor must be among `copies`, the nodes known to be no ReLU.

    Raises:
        LayerError: there is no ReLU, or a part of the graph hides what it runs (compiled, scripted, checkpointed).
    """
    # A node of a change in a view hides its function (`CopySlices`); those that `beside_views` made only copy.
    num, known = 0, set(copies)  # holds the nodes, whose Python side would be made anew
    for node in graph_nodes(logits):
        if _hides_functions(node) and node not in known:
            raise LayerError(
                f"the model runs {node.name().rpartition('::')[2]}, which hides its ReLUs: explain it without "
                "torch.compile, activation checkpointing, scripted or traced parts and autograd functions of its own "
                "inside."
            )
        if _sends_back_as_relu(node):
            # A hook on a node of this pass' graph, not on a module: it goes when the graph does.
            node.register_hook(lambda sent, received: tuple(rule(grad, received[0]) for grad in sent))
            num += 1
    if not num:
        raise LayerError(
            "the model has no ReLU whose backward rule could be changed, or runs it without gradients: use the plain "
            "Gradient."
        )


def _hides_functions(node: Node) -> bool:
    """Whether a node may stand for any function: one written in Python or C++, a scripted graph, a change of a view."""
    name = node.name()
    is_foreign = name.startswith("torch::jit") or "CppNode" in name or "CopySlices" in name
    return is_foreign or isinstance(node, torch.autograd.function.BackwardCFunction)


_CLIPPING = {
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
    "Threshold": "_saved_threshold",
}
"""Nodes that send nothing back below a number, and where they keep it."""


def _sends_back_as_relu(node: Node) -> bool:
    name = node.name().partition("Backward")[0]
    low = getattr(node, _CLIPPING[name], None) if name in _CLIPPING else None
    return name == "Relu" or (not isinstance(low, Tensor) and low == 0)
