"""The binary cross-entropy of classes that are each asked for by themselves.

    L = - mean_n sum_k [ p_nk log s(y_nk) + (1 - p_nk) log(1 - s(y_nk)) ],  s(y) = 1 / (1 + exp(-y))

for logits y and targets p in [0, 1]. A softmax does not change where all logits of an image move alike, so nothing
holds what a class's logit, and with it its heatmap, is by itself; sigmoids hold it ("How to Probe", Gairola, Boehle,
Locatello and Schiele, ICLR 2025, section 3).

Deviation: a sum over the classes, where torch has a mean; so the size of a gradient does not shrink with their number.

Legend: N images, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The binary cross-entropy in nats, a sum over the classes and a mean over the images.

    Args:
        logits: `[N,K]`, K >= 2.
        targets: the classes `[N]`, integers, or a probability of each class `[N,K]`, which get no gradient.

    Raises:
        ArgumentError: shapes do not match, or there is one logit.

    >>> round(binary_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)
    1.3863
    """
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise ArgumentError(f"`logits` must be [N,K] with N >= 1 and K >= 2, got {list(logits.shape)}.")
    if targets.ndim == 1 and not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[1])
    if targets.shape != logits.shape:
        raise ArgumentError(
            f"`targets` must be [{len(logits)}] integers or {list(logits.shape)} like `logits`, got "
            f"{list(targets.shape)} {targets.dtype}."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = targets.detach().to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(logits)
