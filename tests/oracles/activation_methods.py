"""The activation-space methods from their papers' equations: one image, one class, loops over channels and cells.

`activation` and `gradient` are [C,h,w], maps [h,w]; `score_of` takes what a network is asked about to one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[[Tensor], float]


def weighted_sum(weights: list[float], activation: Tensor) -> Tensor:
    """`sum_c w_c A_c`."""
    heatmap = torch.zeros_like(activation[0])
    for weight, channel in zip(weights, activation, strict=True):
        heatmap += weight * channel
    return heatmap


def cam(activation: Tensor, weights_of_class: Tensor) -> Tensor:
    """`sum_c W_tc A_c`; `weights_of_class` [C] is the class's row of the classifier."""
    return weighted_sum(weights_of_class.tolist(), activation)


def xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """`w_c = sum_ij (A_cij / sum_ab A_cab) g_cij`; 0 where a channel is off."""
    weights = []
    for channel, slope in zip(activation.flatten(1).tolist(), gradient.flatten(1).tolist(), strict=True):
        total = sum(channel)
        weights.append(sum(a / total * g for a, g in zip(channel, slope, strict=True)) if total else 0.0)
    return weighted_sum(weights, activation)


def grad_cam_plus_plus(activation: Tensor, gradient: Tensor, score: float = 0.0) -> Tensor:
    """Equation 19 and 5 for Y = exp(S): the three derivatives of Y, written out; times exp(S) by `score`."""
    weights = []
    for channel, slope in zip(activation.flatten(1).tolist(), gradient.flatten(1).tolist(), strict=True):
        weight = 0.0
        for g in slope:
            first, second, third = (math.exp(score) * g**power for power in (1, 2, 3))
            if first > 0:
                alpha = second / (2 * second + sum(channel) * third)
                weight += alpha * first
        weights.append(weight)
    return weighted_sum(weights, activation)


def layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """`sum_c max(g_cij, 0) A_cij`."""
    heatmap = torch.zeros_like(activation[0])
    for channel, slope in zip(activation, gradient, strict=True):
        for i, j in torch.cartesian_prod(*(torch.arange(n) for n in channel.shape)).tolist():
            heatmap[i, j] += max(float(slope[i, j]), 0.0) * channel[i, j]
    return heatmap


def eigen_cam(activation: Tensor, steps: int = 5000) -> Tensor:
    """The projection on the first right singular vector by power iteration from a vector of ones, whose sign it keeps
    where nothing is negative."""
    cells = activation.flatten(1).T
    vector = torch.ones(cells.shape[1], dtype=cells.dtype)
    for _ in range(steps):
        vector = cells.T @ (cells @ vector)
        vector = vector / vector.norm()
    return (cells @ vector).reshape(activation.shape[1:])


def score_cam(image: Tensor, activation: Tensor, score_of: Score, *, published_code: bool = False) -> Tensor:
    """Algorithm 1: `S_c = f(x * M_c) - f(x_b)`, `w = softmax(S)`; the published code has `w_c = f(x * M_c)`."""
    increases = []
    for channel in activation:
        up = F.interpolate(channel[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        span = up.max() - up.min()
        mask = (up - up.min()) / span if span > 0 else torch.zeros_like(up)
        baseline = 0.0 if published_code else score_of(torch.zeros_like(image))
        increases.append(score_of(image * mask) - baseline)
    if published_code:
        return weighted_sum(increases, activation)
    shares = [math.exp(increase) for increase in increases]
    return weighted_sum([share / sum(shares) for share in shares], activation)


def ablation_cam(activation: Tensor, score_of: Score, *, divided: bool = False) -> Tensor:
    """`w_c = S - S_c`, S_c with channel c at zero; `divided` by S as in the paper. `score_of` takes activations."""
    score = score_of(activation)
    weights = []
    for c in range(len(activation)):
        ablated = activation.clone()
        ablated[c] = 0
        weights.append((score - score_of(ablated)) / (score if divided else 1.0))
    return weighted_sum(weights, activation)


def fem(activation: Tensor, k: float = 2.0, *, published_code: bool = False) -> Tensor:
    """`sum_c mean(A_c) [A_cij > mean(A_c) + k std(A_c)]`; the published code has `sum_c mean([...]) A_c`."""
    heatmap = torch.zeros_like(activation[0])
    for channel in activation:
        values = channel.flatten().tolist()
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        strong = torch.tensor([value > mean + k * deviation for value in values]).reshape(channel.shape).to(channel)
        heatmap += float(strong.mean()) * channel if published_code else mean * strong
    return heatmap


KERNELS: dict[str, Callable[[list[float], list[float], float], float]] = {
    "sigmoid": lambda x, y, gamma: math.tanh(gamma * _dot(x, y) + 1),
    "rbf": lambda x, y, gamma: math.exp(-gamma * sum((a - b) ** 2 for a, b in zip(x, y, strict=True))),
    "polynomial": lambda x, y, gamma: (gamma * _dot(x, y) + 1) ** 3,
    "linear": lambda x, y, gamma: _dot(x, y),
}


def _dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def kpca_cam(activation: Tensor, kernel: str = "sigmoid", gamma: float | None = None, squares: int = 20) -> Tensor:
    """`sqrt(l) v` of the centred kernel matrix by its power `2^squares`, with Eigen-CAM's sign.

    A shift makes the largest eigenvalue that of the largest magnitude, as the sigmoid's matrix has negative ones.
    """
    cells = activation.flatten(1).T
    centred = (cells - cells.mean(0)).tolist()
    gamma = 1 / len(activation) if gamma is None else gamma
    matrix = torch.tensor([[KERNELS[kernel](x, y, gamma) for y in centred] for x in centred], dtype=cells.dtype)
    flat = torch.full_like(matrix, 1 / len(matrix))
    matrix = matrix - flat @ matrix - matrix @ flat + flat @ matrix @ flat
    power = matrix + matrix.norm() * torch.eye(len(matrix), dtype=cells.dtype)
    for _ in range(squares):
        power = power @ power / power.norm() ** 2
    vector = power @ torch.linspace(-1, 2, len(matrix), dtype=cells.dtype)
    vector = vector / vector.norm()
    component = vector * (vector @ matrix @ vector).sqrt()
    return (component * (component @ cells.mean(1)).sign()).reshape(activation.shape[1:])


def shapley_cam(activation: Tensor, score_of: Callable[[Tensor], Tensor]) -> Tensor:
    """`w_c = mean_ij (g - H A / 2)_cij` with the whole Hessian of the score, a matrix; `score_of` takes activations."""
    gradient = torch.autograd.functional.jacobian(score_of, activation)
    hessian = torch.autograd.functional.hessian(score_of, activation).reshape(activation.numel(), -1)
    curved = gradient - (hessian @ activation.flatten()).reshape(activation.shape) / 2
    return weighted_sum(curved.mean((1, 2)).tolist(), activation)
