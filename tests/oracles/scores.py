"""The table of "Why Not Other Classes?" (NeurIPS 2022, section 3): each score's gradient at the logits, by loops."""

from __future__ import annotations

import math


def gradient(name: str, logits: list[float], target: int, foil: int | None = None) -> list[float]:
    """`dS/dy` for one image, as the paper's table writes it in terms of phi_t and phi_s."""
    others = [s for s in range(len(logits)) if s != target]
    total = sum(math.exp(y) for y in logits)
    p_t = math.exp(logits[target]) / total
    weights = {s: math.exp(logits[s]) / sum(math.exp(logits[k]) for k in others) for s in others}
    best = max(others, key=lambda s: logits[s])
    row = [0.0] * len(logits)
    scale = {"probability": p_t * (1 - p_t), "log_probability": 1 - p_t}.get(name, 1.0)
    row[target] = scale
    for s in others:
        share = {
            "logit": 0.0,
            "mean": 1 / len(others),
            "max": float(s == best),
            "pair": float(s == foil),
        }.get(name, weights[s])
        row[s] = -scale * share
    return row
