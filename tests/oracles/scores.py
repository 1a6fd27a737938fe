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


def nearest_score(logits: list[float], target: int, k: int, alpha: float) -> float:
    """Finer-CAM's score as its code has it: `sum_s w_s (y_t - alpha y_s) / sum_s w_s` over the k classes of which the
    logit is nearest to that of the target, `w_s` their probabilities."""
    others = sorted((abs(y - logits[target]), s) for s, y in enumerate(logits) if s != target)[:k]
    total = sum(math.exp(y) for y in logits)
    above = below = 0.0
    for _, s in others:
        probability = math.exp(logits[s]) / total
        above += probability * (logits[target] - alpha * logits[s])
        below += probability
    return above / below


def nearest_gradient(logits: list[float], target: int, k: int, alpha: float) -> list[float]:
    """`dS/dy` of that score, by finite differences: also through the probabilities."""
    step, row = 1e-5, []
    for place in range(len(logits)):
        sides = [[y + sign * step * (s == place) for s, y in enumerate(logits)] for sign in (1, -1)]
        row.append((nearest_score(sides[0], target, k, alpha) - nearest_score(sides[1], target, k, alpha)) / (2 * step))
    return row


def sigmoid(y: float) -> float:
    return 1 / (1 + math.exp(-y))


def gradient_of_sigmoids(name: str, logits: list[float], target: int) -> list[float]:
    """`dS/dy` for one image of one logit (target 0 or 1) or of several labels, by finite differences of plain words:
    the probability of class 1 of one logit is sigmoid(y), of class 0 the rest; of label t it is sigmoid(y_t)."""

    def score(y: list[float]) -> float:
        own = y[target] if len(y) > 1 else (y[0] if target == 1 else -y[0])
        return {"logit": own, "probability": sigmoid(own), "log_probability": math.log(sigmoid(own))}[name]

    step, row = 1e-5, []
    for place in range(len(logits)):
        sides = [[y + sign * step * (k == place) for k, y in enumerate(logits)] for sign in (1, -1)]
        row.append((score(sides[0]) - score(sides[1])) / (2 * step))
    return row


def contrast_of_softmax(y: float, target: int, name: str) -> float:
    """A contrast of one logit: that of the softmax over (0, y), by the table of the paper."""
    own, other = (y, 0.0) if target == 1 else (0.0, y)
    return own - {"mean": other, "max": other, "weighted": math.log(math.exp(other)), "pair": other}[name]
