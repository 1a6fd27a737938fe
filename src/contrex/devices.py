"""Which device to compute on."""

from __future__ import annotations

import torch

from contrex.errors import ArgumentError


def device_named(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA when there is one, otherwise the CPU.

    Raises:
        ArgumentError: torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"`device` {name!r} cannot be used here: {str(error).splitlines()[0]} Try 'cpu'.") from None
    return device
