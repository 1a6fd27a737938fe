"""Relevance propagation and attention rollout from their equations: one image, explicit matrices, loops over lists.

A rule takes the matrix [I,J] and bias [I] of a linear map, its input [J] and the relevance of its output [I], and gives
that of its input [J].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def matrix(function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """The matrix [I,J] of a linear function of one image of `shape` [C,h,w]."""
    size = int(torch.tensor(shape).prod())
    units = torch.eye(size, dtype=torch.float64)
    return torch.stack([function(unit.reshape(1, *shape)).flatten() for unit in units], 1)


def _shared(
    contributions: Callable[[int, int], float],
    extra: Callable[[int], float],
    size: int,
    relevance: Tensor,
    stabiliser: float = 0.0,
) -> Tensor:
    """Each output's relevance in proportion to contributions (i, j) to it, `extra` (i) keeping the bias's share."""
    found, relevances = [0.0] * size, relevance.tolist()
    for i in range(len(relevances)):
        values = [contributions(i, j) for j in range(size)]
        total = sum(values) + extra(i)
        total += stabiliser if total >= 0 else -stabiliser
        if relevances[i] == 0 or total == 0:
            continue
        for j in range(size):
            found[j] += values[j] / total * relevances[i]
    return torch.tensor(found, dtype=torch.float64)


def epsilon(stabiliser: float) -> Rule:
    def rule(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
        parts, bias = (w * x).tolist(), b.tolist()
        return _shared(lambda i, j: parts[i][j], lambda i: bias[i], len(x), relevance, stabiliser)

    return rule


def z_plus(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
    parts = (w * x).tolist()
    return _shared(lambda i, j: max(parts[i][j], 0.0), lambda i: 0.0, len(x), relevance)


def gamma(strength: float) -> Rule:
    def rule(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
        z, parts, bias = (w @ x + b).tolist(), (w * x).tolist(), b.tolist()

        def favoured(i: int, value: float) -> float:
            return value + strength * (max(value, 0.0) if z[i] >= 0 else min(value, 0.0))

        return _shared(lambda i, j: favoured(i, parts[i][j]), lambda i: favoured(i, bias[i]), len(x), relevance)

    return rule


def alpha_beta(alpha: float) -> Rule:
    def rule(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
        parts, bias = (w * x).tolist(), b.tolist()
        positive = _shared(lambda i, j: max(parts[i][j], 0.0), lambda i: max(bias[i], 0.0), len(x), relevance)
        negative = _shared(lambda i, j: min(parts[i][j], 0.0), lambda i: min(bias[i], 0.0), len(x), relevance)
        return alpha * positive - (alpha - 1) * negative

    return rule


def z_box(low: Tensor, high: Tensor) -> Rule:
    """`low` and `high` are [J]."""

    def rule(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
        weights, pixels, lowest, highest = w.tolist(), x.tolist(), low.tolist(), high.tolist()

        def contribution(i: int, j: int) -> float:
            weight = weights[i][j]
            return weight * pixels[j] - max(weight, 0.0) * lowest[j] - min(weight, 0.0) * highest[j]

        return _shared(contribution, lambda i: 0.0, len(x), relevance)

    return rule


def excitation(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
    """`P(x_j) = x_j sum_i w+_ij P(z_i) / sum_k w+_ik x_k`; a negative neuron is silent."""
    weights, values = w.tolist(), x.tolist()
    return _shared(lambda i, j: max(weights[i][j], 0.0) * max(values[j], 0.0), lambda i: 0.0, len(x), relevance)


def signed_excitation(w: Tensor, b: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
    """As published: negative neurons count with their sign."""
    weights, values = w.tolist(), x.tolist()
    return _shared(lambda i, j: max(weights[i][j], 0.0) * values[j], lambda i: 0.0, len(x), relevance)


def add(rule: Rule, addends: Sequence[Tensor], relevance: Tensor) -> list[Tensor]:
    """An explicit sum of tensors [J]: a linear map whose matrix is identities side by side."""
    size = len(relevance)
    w = torch.cat([torch.eye(size, dtype=torch.float64)] * len(addends), 1)
    return list(rule(w, torch.zeros(size), torch.cat(list(addends)), relevance).split(size))


def max_pool(x: Tensor, size: int, relevance: Tensor) -> Tensor:
    """The winner of each cell of `size` x `size` takes its relevance; x [C,h,w]."""
    found = torch.zeros_like(x)
    relevance = relevance.reshape(x.shape[0], x.shape[1] // size, x.shape[2] // size)
    for c in range(relevance.shape[0]):
        for i in range(relevance.shape[1]):
            for j in range(relevance.shape[2]):
                cell = x[c, i * size : (i + 1) * size, j * size : (j + 1) * size]
                winner = int(cell.flatten().argmax())
                found[c, i * size + winner // size, j * size + winner % size] += relevance[c, i, j]
    return found


def rollout(attention: Sequence[Tensor], read: Sequence[int]) -> Tensor:
    """Abnar and Zuidema: weights [h,T,T] of each layer of one image to the rows of the tokens read [T]."""
    num = attention[0].shape[1]
    flow = torch.eye(num, dtype=torch.float64)
    for weights in attention:
        mean = sum(weights[h] for h in range(len(weights))) / len(weights)
        mixed = torch.zeros(num, num, dtype=torch.float64)
        for i in range(num):
            row = [(float(mean[i, j]) + (i == j)) / 2 for j in range(num)]
            for j in range(num):
                mixed[i, j] = row[j] / sum(row)
        flow = mixed @ flow
    return sum(flow[i] for i in read) / len(read)


def gradient_rollout(attention: Sequence[Tensor], gradients: Sequence[Tensor], read: Sequence[int]) -> Tensor:
    """Chefer et al.: `R <- R + A R` from `R = I`; `A` is the mean over heads of the positive gradient x attention."""
    num = attention[0].shape[1]
    identity = torch.eye(num, dtype=torch.float64)
    flow = identity.clone()
    for weights, gradient in zip(attention, gradients, strict=True):
        mean = [[0.0] * num for _ in range(num)]
        for head in (gradient * weights).tolist():
            for i in range(num):
                for j in range(num):
                    mean[i][j] += max(head[i][j], 0.0) / len(weights)
        flow = flow + torch.tensor(mean, dtype=torch.float64) @ flow
    return sum((flow - identity)[i] for i in read) / len(read)
