"""What losses are given, checked before torch says it in its own words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.errors import ArgumentError

Integers = Tensor | Sequence[int]


def check_maps(name: str, maps: Tensor, beside: Tensor | None = None) -> None:
    """Refuse what is no floating-point tensor, or not on the device of those it is compared with (`beside`).

    Raises:
        ArgumentError: the message names the argument and what to pass.
    """
    if not isinstance(maps, Tensor):
        raise ArgumentError(
            f"`{name}` must be a tensor, got {type(maps).__name__}: the `heatmap` of an Explanation, or torch.stack of "
            "a list."
        )
    if not maps.is_floating_point():
        raise ArgumentError(f"`{name}` must be floating point, got {maps.dtype}.")
    if beside is not None and maps.device != beside.device:
        raise ArgumentError(f"`{name}` is on {maps.device}, what it is compared with on {beside.device}: move one.")


def integers(name: str, values: Integers, device: torch.device) -> Tensor:
    """The integers in `values` - a tensor, a list, an array - as a tensor on `device`.

    Raises:
        ArgumentError: they are no integers.
    """
    try:
        found = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"`{name}` must be integers, one per image; got {values!r}.") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ArgumentError(f"`{name}` must be integers, one per image; got {found.dtype} {list(found.shape)}.")
    return found
