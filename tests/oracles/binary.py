"""Binary cross-entropy ("How to Probe", ICLR 2025): a sum over classes and a mean over images, by loops."""

from __future__ import annotations

import torch
from torch import Tensor


def binary_cross_entropy(logits: Tensor, targets: list[list[float]]) -> Tensor:
    """`- mean_n sum_k [p log s(y) + (1 - p) log(1 - s(y))]` for logits [N,K]."""
    losses = []
    for row, wanted in zip(logits, targets, strict=True):
        terms = []
        for y, p in zip(row, wanted, strict=True):
            probability = 1 / (1 + torch.exp(-y))
            terms.append(-(p * torch.log(probability) + (1 - p) * torch.log(1 - probability)))
        losses.append(torch.stack(terms).sum())
    return torch.stack(losses).mean()
