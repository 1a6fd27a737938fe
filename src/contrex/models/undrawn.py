"""Building networks whose weights come from elsewhere, without the random numbers that they would start with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    (
        *(Tensor.normal_, Tensor.uniform_, Tensor.erfinv_),  # the last makes normal numbers of uniform ones
        *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_),  # modes see these before what is in them
    )
)


class Undrawn(TorchFunctionMode):
    """Leave parameters that are made inside as memory holds them, instead of filling them with random numbers.

    Those of a vision transformer take two seconds. Buffers, and what is set to one value, are as ever, and the
    generators of random numbers stay where they are. For networks of which each parameter gets a value afterwards.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or pass over one that draws into a parameter."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            drawn = args[0] if args else kwargs["tensor"]
            if isinstance(drawn, nn.Parameter):
                return drawn
        return func(*args, **kwargs)
