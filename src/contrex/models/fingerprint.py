"""The identity of weights: one hash of all that a network has learned."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_sha256(network: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        # Bytes, on the CPU: the same weights have one digest on every device and in every memory layout.
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
