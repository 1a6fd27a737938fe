"""Self-distilled consistency: `L = w T^2 mean KL(teacher || student) + weight L_CGC`, image by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oracles import consistency


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """`KL(p || q)` of the softmaxes p and q of two rows of logits [K] divided by a temperature, by its sum."""
    p = [math.exp(y / temperature) for y in teacher.tolist()]
    exponentials = [torch.exp(y / temperature) for y in student]
    terms = []
    for weight, exponential in zip(p, exponentials, strict=True):
        own = weight / sum(p)
        terms.append(own * (math.log(own) - torch.log(exponential / sum(exponentials))))
    return torch.stack(terms).sum()


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """`T^2 mean KL` over the rows [N,K]."""
    rows = [divergence(t, s, temperature) for t, s in zip(teacher, student, strict=True)]
    return temperature**2 * torch.stack(rows).mean()


def loss(
    teacher: Tensor,
    student: Tensor,
    maps: Tensor,
    boxes: list[tuple[int, int, int, int, bool]],
    *,
    weights: tuple[float, float],
    distillation_temperature: float,
    temperature: float,
    size: tuple[int, int],
    negatives: bool,
    extra: Tensor | None = None,
) -> Tensor:
    """The loss of N + n rows of logits and maps: first those of the plain images, then those of the views of the first
    n (all, where `boxes` are as many); `weights` are those of the divergence and of the consistency."""
    plain, view = maps[: len(boxes)], maps[len(maps) - len(boxes) :]
    if negatives:
        options = {"size": size, "temperature": temperature, "variant": "paper", "extra": extra}
        term = consistency.cgc_losses(plain, view, boxes, **options).mean()
    else:
        term = consistency.l2_loss(plain, view, boxes, size)
    return weights[0] * distillation(teacher, student, distillation_temperature) + weights[1] * term


def e2kd(
    teacher: Tensor,
    student: Tensor,
    teachers_maps: Tensor,
    maps: Tensor,
    boxes: list[tuple[int, int, int, int, bool]],
    *,
    weights: tuple[float, float],
    temperature: float,
    size: tuple[int, int],
) -> Tensor:
    """e2KD (ECCV 2024, eq. 3): the divergence and `1 - cosine` of the maps, those of the teacher moved by `boxes`."""
    distances = []
    for theirs, own, box in zip(teachers_maps, maps, boxes, strict=True):
        target, found = consistency.cropped(consistency.enlarged(theirs, size), *box), consistency.enlarged(own, size)
        distances.append(1 - consistency.cosine(target, found))
    return weights[0] * distillation(teacher, student, temperature) + weights[1] * torch.stack(distances).mean()
