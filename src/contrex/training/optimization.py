"""Optimiser and learning rate, from their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from contrex import settings
from contrex.methods import Phase


def build_optimizer(
    parameters: Sequence[nn.Parameter], options: settings.Optimizer, head: Sequence[nn.Parameter] = ()
) -> Optimizer:
    """SGD or AdamW over `parameters`; those that are in `head` too are a group of their own, with `options.head_lr`."""
    groups = [{"params": own, "lr": getattr(options, rate)} for rate, own in by_rate(parameters, head).items()]
    if options.name == "adamw":
        return AdamW(
            groups, lr=options.lr, betas=(options.momentum, 0.999), weight_decay=options.weight_decay, fused=False
        )
    return SGD(
        groups,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )


def by_rate(parameters: Sequence[nn.Parameter], head: Sequence[nn.Parameter]) -> Mapping[str, list[nn.Parameter]]:
    """The parameters by the setting that is their learning rate, `lr` or `head_lr`: an optimiser's groups,
    in their order."""
    # By `is`, as `==` compares the numbers of tensors.
    rest = [parameter for parameter in parameters if all(parameter is not own for own in head)]
    return {rate: own for rate, own in (("lr", rest), ("head_lr", list(head))) if own}


def learning_rates(step: int, steps_per_epoch: int, phase: Phase) -> dict[str, float]:
    """The learning rate of each group of a phase's parameters at optimiser step `step`, by its name in the log."""
    return {
        rate: learning_rate(step, steps_per_epoch, phase.epochs, getattr(phase.optimizer, rate), phase.schedule)
        for rate in by_rate(phase.parameters, phase.head)
    }


def learning_rate(step: int, steps_per_epoch: int, epochs: int, peak: float, schedule: settings.Schedule) -> float:
    """The learning rate of optimiser step `step` (from 0): a pure function, so resuming needs no scheduler state.

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


def take_step(optimizer: Optimizer, *, rates: Sequence[float], clip_norm: float | None, along: bool = True) -> bool:
    """Take one optimiser step along the gradients, with a learning rate for each group; without `along`, or where the
    gradients are NaN or infinite, no step, and False."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Without a limit it clips nothing, and still gives the norm, which one NaN anywhere makes NaN.
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # parameters that processes share
    finite = along and bool(whole.isfinite())  # a sync point: a NaN must never reach the weights
    if finite:
        optimizer.step()
    return finite
