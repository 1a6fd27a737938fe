"""Functions that change a tensor in place: which one they change, and how none of it hides behind a view.

Autograd puts what is written through a view (`x[:, :4].relu_()`) into one node that tells nothing of the function, and
the view's place in the graph is no longer the tensor's. So a function gets a copy of the view, and the copy is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contrex.explain.forward.functions import Interceptor

_OPERATORS = {
    f"__i{name}__"
    for name in ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul")
} | {"__setitem__"}
_OF_THE_GRAPH = {"requires_grad_", "share_memory_"}
"""Functions that say by their name that they change a tensor, and leave its values."""


RESHAPING = {"unsqueeze_", "squeeze_", "transpose_", "swapaxes_", "swapdims_", "t_", "as_strided_", "detach_"}
"""Functions that change in place how a tensor views its memory, and leave the memory."""


def written(function: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that a torch function changes in place, which is always its first; None where it changes none.

    `out=` is no first argument; torch itself refuses it where gradients are recorded.
    """
    name = getattr(function, "__name__", "")
    changes = (
        name in _OPERATORS
        or (name.endswith("_") and not name.endswith("__") and name not in _OF_THE_GRAPH)
        or kwargs.get("inplace") is True
        or function == torch.Tensor.data.__set__  # type: ignore[attr-defined]
    )
    first = args[0] if args else kwargs.get("input")
    return first if changes and isinstance(first, Tensor) else None


def beside_views(interceptor: Interceptor) -> Interceptor:
    """`interceptor`, for which every change through a view is one of a copy of the view, which is then copied into it.

    What it does to the values and to the graph is the same, and each function is a node of its own.
    """

    def intercept(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        target = written(function, args, kwargs)
        keeps_memory = getattr(function, "__name__", "") in RESHAPING | {"__set__", "copy_"}
        if target is None or keeps_memory or not args or not target._is_view() or not torch.is_grad_enabled():
            return interceptor(function, args, kwargs)
        # Autograd makes one opaque node (`CopySlices`) of a change in a view. Of a copy the function is a node that can
        # be seen.
        copy = target.clone()
        interceptor(function, (copy, *args[1:]), kwargs)
        return interceptor(torch.Tensor.copy_, (target, copy), {})

    return intercept


def tensors_in(tree: object) -> Iterator[Tensor]:
    """The tensors among the arguments or results of a function, however they are nested."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, Mapping):
        yield from tensors_in(list(tree.values()))
