"""The device to compute on, and how many images it takes at once."""

from __future__ import annotations

import torch

from contrex.errors import ArgumentError


def device_named(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA if there is one, otherwise the CPU.

    Raises:
        ArgumentError: torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Only memory on a device tells whether this machine has it.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"`device` {name!r} cannot be used here: {str(error).splitlines()[0]} Try 'cpu'.") from None
    return device


def images_at_once(device: torch.device, batch_size: int | None = None) -> int:
    """The most images in one pass through a network: `batch_size`, by default 8 on a CPU and 64 elsewhere.

    A CPU is fastest when the values of a few images fit into its cache. A GPU wants many images, and 64 of 224 pixels
    with their gradients fit into 16 GB for the usual networks. Explainers, metrics and evaluations all follow this
    rule.

    Raises:
        ArgumentError: `batch_size` is below 1.

    >>> [images_at_once(torch.device(name)) for name in ("cpu", "cuda")], images_at_once(torch.device("cpu"), 3)
    ([8, 64], 3)
    """
    if batch_size is None:
        return 8 if device.type == "cpu" else 64
    if batch_size < 1:
        raise ArgumentError(f"`batch_size` must be at least 1 image, got {batch_size}.")
    return batch_size
