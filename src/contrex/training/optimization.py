"""Optimiser and learning rate, from their settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from contrex import settings


def build_optimizer(parameters: Sequence[nn.Parameter], options: settings.Optimizer) -> Optimizer:
    """SGD or AdamW over `parameters`."""
    if options.name == "adamw":
        return AdamW(
            parameters, lr=options.lr, betas=(options.momentum, 0.999), weight_decay=options.weight_decay, fused=False
        )
    return SGD(
        parameters,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )


def learning_rate(step: int, steps_per_epoch: int, epochs: int, peak: float, schedule: settings.Schedule) -> float:
    """The rate of optimiser step `step` (from 0): a pure function, so resuming needs no scheduler state.

    Warm-up rises linearly and reaches the peak at its end; the cosine falls over the steps that follow it.

    >>> cosine = settings.Schedule(name="cosine", warmup_epochs=1)
    >>> [round(learning_rate(s, 2, 3, 1.0, cosine), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.name == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return peak * float(schedule.gamma**passed)
    if schedule.name == "cosine":
        progress = (step - warmup) / max(epochs * steps_per_epoch - warmup, 1)
        return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)
    return peak


def take_step(optimizer: Optimizer, *, lr: float, clip_norm: float | None, along: bool = True) -> bool:
    """One optimiser step along the gradients that are there; without `along`, or where they are NaN or infinite, no
    step, and False."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # parameters that processes share
    finite = along and bool(whole.isfinite())  # a sync point: a NaN must never reach the weights
    if finite:
        optimizer.step()
    return finite
