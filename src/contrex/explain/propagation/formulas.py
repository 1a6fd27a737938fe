"""The rules of AttnLRP for what is not linear: softmax, products of matrices, normalisation.

Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers" (ICML 2024), from the
propositions of section 3.3. Legend: R relevance of an output, x its input, s a softmax.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from contrex.explain.propagation.rules import ratio


def softmax_relevance(x: Tensor, s: Tensor, relevance: Tensor, axis: int) -> Tensor:
    """`R_i = x_i (R_i - s_i sum_j R_j)`: the Taylor expansion of `s = softmax(x)` at x (Proposition 3.1).

    A masked input (-inf) has no influence and gets nothing.
    """
    finite = x.masked_fill(x.isinf(), 0.0)
    return finite * (relevance - s * relevance.sum(axis, keepdim=True))


def softmax_offset(x: Tensor, s: Tensor, relevance: Tensor, axis: int) -> Tensor:
    """`sum_j R_j (1 - x_j + sum_i s_i x_i)`: the relevance of the expansion's constant term, `s(x) - J x`."""
    finite = x.masked_fill(x.isinf(), 0.0)
    return (relevance * (1 - finite + (s * finite).sum(axis, keepdim=True))).sum()


def bilinear_relevance(
    function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, relevance: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """`R_ji = sum_p a_ji b_ip R_jp / (2 z_jp + epsilon sign z_jp)` for `z = a b`, and b likewise (Proposition 3.3).

    It is the epsilon rule, with half of the relevance for each matrix. `function` is any that is linear in both.
    """
    with torch.enable_grad(), torch.autocast(relevance.device.type, enabled=False):
        factors = [a.detach().requires_grad_(), b.detach().requires_grad_()]
        z = function(*factors)
        gradients = torch.autograd.grad(z, factors, ratio(relevance.to(z.dtype), 2 * z.detach(), epsilon))
    return a * gradients[0], b * gradients[1]


def centred(x: Tensor, groups: tuple[int, ...]) -> Tensor:
    """`x - mean(x)`; the mean is over the last axis of x in the shape `groups`."""
    grouped = x.reshape(groups)
    return (grouped - grouped.mean(-1, keepdim=True)).view_as(x)


def normalising_scale(x: Tensor, groups: tuple[int, ...], eps: float) -> Tensor:
    """`1 / sqrt(Var[x] + eps)` for each cell of x: a constant for the rule of a normalisation (Proposition 3.4)."""
    grouped = x.reshape(groups)
    return (grouped.var(-1, unbiased=False, keepdim=True) + eps).rsqrt().expand_as(grouped).reshape(x.shape)
