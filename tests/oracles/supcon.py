"""SupCon and ExConB from their equations (ExCon, ICLR 2022 submission, eq. 2, section 3.4, appendix eq. 4 and 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Row = tuple[int, int]
"""(image, view)"""


def anchor_losses(features: Tensor, labels: list[int], temperature: float) -> list[Tensor]:
    """`L_i` of every anchor that has a positive; the images behind the labelled ones are background."""
    losses = []
    for i, positives, others in _anchors(features, labels):
        denominator = sum(_exp(features, i, a, temperature) for a in others)
        logs = [torch.log(_exp(features, i, p, temperature) / denominator) for p in positives]
        losses.append(-sum(logs) / len(positives))
    return losses


def loss(features: Tensor, labels: list[int], temperature: float) -> Tensor:
    """The mean over the anchors."""
    return torch.stack(anchor_losses(features, labels, temperature)).mean()


def gradient(features: Tensor, labels: list[int], temperature: float) -> Tensor:
    """The gradient of `loss` by formula.

    An anchor gets `1/tau (sum_a w_a e_a - mean_p e_p)` (appendix); whatever it is contrasted with gets its share of
    the same product, `1/tau (w_a - [a in P(i)] / |P(i)|) e_i`.
    """
    total = torch.zeros_like(features)
    anchors = _anchors(features, labels)
    for i, positives, others in anchors:
        denominator = sum(_exp(features, i, a, temperature) for a in others)
        for a in others:
            weight = _exp(features, i, a, temperature) / denominator - (a in positives) / len(positives)
            total[i] += weight * features[a] / temperature
            total[a] += weight * features[i] / temperature
    return total / len(anchors)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR (Chen et al. 2020, eq. 1): view-major, cross-entropy over the 2n - 1 others, target the other view."""
    num = len(first)
    both = torch.cat([first, second])
    logits = F.cosine_similarity(both[:, None], both[None], dim=2) / temperature
    losses = []
    for i in range(2 * num):
        others = [k for k in range(2 * num) if k != i]
        target = others.index((i + num) % (2 * num))
        losses.append(F.cross_entropy(logits[i, others], torch.tensor(target)))
    return torch.stack(losses).mean()


def positive_and_contrasted(labels: list[int], num_views: int, num_background: int) -> tuple[Tensor, Tensor]:
    """The masks [A,M], pair by pair."""
    rows = [(i, v) for i in range(len(labels) + num_background) for v in range(num_views)]
    anchors = [row for row in rows if row[0] < len(labels)]
    positive = [[a != b and b in anchors and labels[a[0]] == labels[b[0]] for b in rows] for a in anchors]
    return torch.tensor(positive), torch.tensor([[a != b for b in rows] for a in anchors])


def _anchors(features: Tensor, labels: list[int]) -> list[tuple[Row, list[Row], list[Row]]]:
    """(i, P(i), everything but i) of every anchor with a positive."""
    rows: list[Row] = [(i, v) for i in range(features.shape[0]) for v in range(features.shape[1])]
    found = []
    for i in rows[: len(labels) * features.shape[1]]:
        others = [row for row in rows if row != i]
        positives = [row for row in others if row[0] < len(labels) and labels[row[0]] == labels[i[0]]]
        if positives:
            found.append((i, positives, others))
    return found


def _exp(features: Tensor, i: Row, a: Row, temperature: float) -> Tensor:
    return torch.exp(features[i] @ features[a] / temperature)
