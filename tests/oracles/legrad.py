"""LeGrad from its equations: one image, one class, loops over layers, heads and tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def legrad(scores: list[Tensor], attention: list[Tensor], num_prefix: int) -> Tensor:
    """`1/L sum_l 1/(h n) sum_h sum_i max(ds_l/dA_l[h,i,j], 0)` for each token j that is a patch: `[n - prefix]`.

    `scores` are the layers' own, `attention` `[1,h,n,n]` the map of each in their graph.
    """
    influence = None
    for score, weights in zip(scores, attention, strict=True):
        (gradient,) = torch.autograd.grad(score, weights, retain_graph=True)
        _, heads, num, _ = gradient.shape
        of_layer = torch.zeros(num, dtype=gradient.dtype)
        for head in gradient[0]:
            for i in range(num):
                for j in range(num):
                    of_layer[j] += max(float(head[i, j]), 0.0) / (heads * num)
        influence = of_layer if influence is None else influence + of_layer
    return (influence / len(scores))[num_prefix:]
