"""Methods at the pixels from their equations: one image, one class, plain sums; RISE and occlusion pixel by pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def pixel_gradient(model: nn.Module, image: Tensor, target: int) -> Tensor:
    """`dy_t/dx` of one image [C,H,W]."""
    leaf = image.detach().clone().requires_grad_()
    return torch.autograd.grad(model(leaf[None])[0, target], leaf)[0]


def gradient_times_input(model: nn.Module, image: Tensor, target: int) -> Tensor:
    gradient = pixel_gradient(model, image, target)
    return sum(image[c] * gradient[c] for c in range(len(image)))


def smooth_grad(model: nn.Module, image: Tensor, target: int, noise: list[Tensor], share: float) -> Tensor:
    """`1/n sum_i dS/dx (x + e_i)`, `e_i = share (max x - min x) noise_i`."""
    deviation = share * (image.max() - image.min())
    total = sum(pixel_gradient(model, image + deviation * one, target).sum(0) for one in noise)
    return total / len(noise)


def integrated_gradients(model: nn.Module, image: Tensor, target: int, baseline: Tensor, steps: int = 1000) -> Tensor:
    """`(x - x') int dS/dx`, by a fine midpoint sum."""
    total = torch.zeros_like(image)
    for step in range(steps):
        total += pixel_gradient(model, baseline + (step + 0.5) / steps * (image - baseline), target) / steps
    return ((image - baseline) * total).sum(0)


def full_grad(layers: nn.Sequential, image: Tensor, target: int) -> list[Tensor]:
    """Input x gradient [H,W], then each layer's `sum_c b_c dS/dz_c` at the layer's own size, for a chain of layers."""
    outputs = [image[None].detach().requires_grad_()]
    for layer in layers:
        outputs.append(layer(outputs[-1]))
    gradients = torch.autograd.grad(outputs[-1][0, target], outputs)
    parts = [(image * gradients[0][0]).sum(0)]
    for layer, x, gradient in zip(layers, outputs, gradients[1:], strict=False):
        g = gradient[0]
        if isinstance(layer, nn.BatchNorm2d):
            sigma = (layer.running_var + layer.eps).sqrt()
            bias = layer.bias - layer.weight * layer.running_mean / sigma
            parts.append(sum(bias[c] * g[c] for c in range(len(bias))).detach())
        elif isinstance(layer, nn.Tanh):
            bias = x.tanh() - (1 - x.tanh() ** 2) * x
            parts.append((bias[0] * g).sum().reshape(1, 1).detach())
        elif getattr(layer, "bias", None) is not None:
            part = sum(layer.bias[c] * g[c] for c in range(len(layer.bias)))
            parts.append(part.detach().reshape(part.shape or (1, 1)))
    return parts


def relu_chain(layers: nn.Sequential, image: Tensor, target: int, *, guided: bool) -> Tensor:
    """What arrives at the pixels [C,H,W], walking a chain backwards with `max(R, 0)` at each ReLU; where `guided`,
    only through the units that were active."""
    inputs = [image[None]]
    for layer in layers:
        inputs.append(layer(inputs[-1]).detach())
    signal = torch.zeros_like(inputs[-1])
    signal[0, target] = 1
    for layer, x in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            signal = signal.clamp(min=0) * ((x > 0) if guided else 1)
        else:
            leaf = x.detach().requires_grad_()
            (signal,) = torch.autograd.grad(layer(leaf), leaf, signal)
    return signal[0]


def rise_mask(grid: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """A grid [s,s] enlarged bilinearly to (s + 1) cells of ceil(H / s) x ceil(W / s) pixels and cut at (top, left)."""
    cells = len(grid)
    cell = [math.ceil(side / cells) for side in size]
    mask = torch.zeros(size, dtype=torch.float64)

    def sources(pixel: int, length: int) -> list[tuple[int, float]]:
        position = min(max((pixel + 0.5) * cells / ((cells + 1) * length) - 0.5, 0), cells - 1)
        below = min(math.floor(position), cells - 2) if cells > 1 else 0
        return [(below, 1 - (position - below)), (min(below + 1, cells - 1), position - below)]

    for y in range(size[0]):
        for x in range(size[1]):
            for row, share in sources(y + top, cell[0]):
                for column, other in sources(x + left, cell[1]):
                    mask[y, x] += share * other * float(grid[row, column])
    return mask


def rise(model: nn.Module, image: Tensor, target: int, masks: list[Tensor], keep: float) -> Tensor:
    """`1 / (E[M] n) sum_i p_t(x * M_i) M_i`, with the probability as the paper has it."""
    total = torch.zeros_like(masks[0])
    for mask in masks:
        total += model((image * mask)[None]).softmax(1)[0, target].detach() * mask
    return total / (keep * len(masks))


def occlusion(
    model: nn.Module, image: Tensor, target: int, window: tuple[int, int], stride: tuple[int, int], filling: Tensor
) -> Tensor:
    """The mean loss of the logit over the windows that cover a pixel."""
    _, height, width = image.shape
    total, count = torch.zeros(height, width, dtype=image.dtype), torch.zeros(height, width, dtype=image.dtype)
    whole = model(image[None])[0, target].item()
    tops = sorted({*range(0, height - window[0] + 1, stride[0]), height - window[0]})
    lefts = sorted({*range(0, width - window[1] + 1, stride[1]), width - window[1]})
    for top in tops:
        for left in lefts:
            changed = image.clone()
            for y in range(top, top + window[0]):
                for x in range(left, left + window[1]):
                    changed[:, y, x] = filling[:, y, x]
            loss = whole - model(changed[None])[0, target].item()
            total[top : top + window[0], left : left + window[1]] += loss
            count[top : top + window[0], left : left + window[1]] += 1
    return total / count
