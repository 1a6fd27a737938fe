"""One call of a torch function, and how its output gets a rule in the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

Rule = Callable[[Tensor], Sequence[Tensor]]
"""From the relevance of an output to that of each input. Rules live in the graph, so none may hold on to a tensor with
a graph: it would never be freed."""


@dataclass(frozen=True, eq=False)
class Call:
    """A torch function with what it is called with, some of it `data`; one that `is_writing` changes its first."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    data: Sequence[Tensor]
    is_writing: bool = False

    def option(self, place: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def value(self) -> Tensor:
        """What the function gives, without a graph; one that writes writes to a copy."""
        values = [t.detach() if isinstance(t, Tensor) else t for t in self.args]
        values = [values[0].clone(), *values[1:]] if self.is_writing else values
        with torch.no_grad():
            value: Tensor = self.function(*values, **self.kwargs)
        return value


class _Relevance(torch.autograd.Function):
    """Gives a value a backward pass that is `rule`: from its relevance to that of each of `inputs`."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.dtypes = rule, [x.dtype for x in inputs]
        # A tensor of its own: autograd treats an input that is returned as it is as a view of it.
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        # Rules compute in float32 or better; autograd insists on the types of the inputs.
        shares = ctx.rule(relevance[0])
        return None, None, *[share.to(dtype) for share, dtype in zip(shares, ctx.dtypes, strict=True)]


def given(rule: Rule, value: Tensor, *inputs: Tensor) -> Tensor:
    """Give a value a backward pass that is a rule."""
    output: Tensor = _Relevance.apply(rule, value, *inputs)
    return output


def is_rule(node: Node) -> bool:
    """Whether the backward function of a tensor is a rule, and not torch's own."""
    return node.name() == "_RelevanceBackward"


def precise(tensor: Tensor) -> Tensor:
    """A tensor without its graph, in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
