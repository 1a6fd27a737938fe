"""Grad-CAM, HiResCAM and the input gradient from their equations: one image, one class, loops over cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONTRASTS = (None, "mean", "max", "weighted", "nearest(k=2, alpha=0.6)", 2)


def class_gradients(head: nn.Module, activation: Tensor, num_classes: int) -> list[Tensor]:
    """`dy_k/dA` for every class of one activation [1,C,h,w]."""
    leaf = activation.detach().requires_grad_()
    logits = head(leaf)[0]
    return [torch.autograd.grad(logits[k], leaf, retain_graph=True)[0][0] for k in range(num_classes)]


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """`sum_c w_c A_c`, `w_c` the mean of the gradient over cells; [C,h,w] twice to [h,w]."""
    channels, height, width = activation.shape
    heatmap = torch.zeros(height, width, dtype=activation.dtype)
    for c in range(channels):
        weight = sum(gradient[c, i, j] for i in range(height) for j in range(width)) / (height * width)
        for i in range(height):
            for j in range(width):
                heatmap[i, j] += weight * activation[c, i, j]
    return heatmap


def hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """`sum_c (dS/dA)_c A_c`, cell by cell."""
    channels, height, width = activation.shape
    heatmap = torch.zeros(height, width, dtype=activation.dtype)
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                heatmap[i, j] += gradient[c, i, j] * activation[c, i, j]
    return heatmap


def contrasted(
    maps: list[Tensor], logits: list[float], target: int, contrast: str | int | None, score: str = "logit"
) -> Tensor:
    """Proposition 3: the contrast as a weighted difference of the per-class maps."""
    others = [s for s in range(len(maps)) if s != target]
    if contrast is None:
        return maps[target]
    if contrast == "mean":
        weights = {s: 1 / len(others) for s in others}
    elif contrast == "max":
        weights = {max(others, key=lambda s: logits[s]): 1.0}
    elif contrast == "weighted":
        shares = torch.tensor([logits[s] for s in others], dtype=torch.float64).softmax(0).tolist()
        weights = dict(zip(others, shares, strict=True))
    elif contrast == "nearest(k=2, alpha=0.6)":
        near = sorted(others, key=lambda s: abs(logits[s] - logits[target]))[:2]
        shares = torch.tensor([logits[s] for s in near], dtype=torch.float64).softmax(0).tolist()
        mean = sum(share * logits[s] for share, s in zip(shares, near, strict=True))
        weights = {
            s: 0.6 * share * (1 + (logits[s] - mean) * (score == "logit"))
            for share, s in zip(shares, near, strict=True)
        }
    else:
        weights = {int(contrast): 1.0}
    heatmap = maps[target].clone()
    for s, weight in weights.items():
        heatmap -= weight * maps[s]
    return heatmap


def assert_contrasted(explainer, images, target, maps, *, rtol=1e-9, atol=1e-12, **options) -> None:
    """Every contrast is that of the class maps, `maps[n][k]` of image n."""
    for contrast in (CONTRASTS[0], *CONTRASTS):  # later calls use what the first has verified
        why = explainer(images, target=target, contrast=contrast, **options)
        for index, t in enumerate(target):
            expected = contrasted(maps[index], why.logits[index].tolist(), t, contrast, options.get("score", "logit"))
            message = f"contrast {contrast}, image {index}: {{}}".format
            torch.testing.assert_close(why.heatmap[index], expected, rtol=rtol, atol=atol, msg=message)
