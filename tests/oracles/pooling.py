"""Global pooling of one map: mean, maximum, and log-sum-exp `T log( sum_k exp(a_k / T) / n )`, by loops."""

from __future__ import annotations

import math

from torch import Tensor


def pooled(cells: Tensor, kind: str, temperature: float) -> float:
    """The cells of one channel as one number."""
    values = cells.flatten().tolist()
    if kind == "max":
        return float(max(values))
    if kind == "mean":
        return float(sum(values) / len(values))
    return temperature * math.log(sum(math.exp(value / temperature) for value in values) / len(values))
