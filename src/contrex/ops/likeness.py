"""Whether two passes gave the same logits, but for rounding: a class that is switched off must not hide the others."""

from __future__ import annotations

import torch
from torch import Tensor

_FAR = ((2, 1000.0, 300.0), (3, 100.0, 30.0))
"""Beside so many logits that are not 0, one of a class that is switched off is at least so large, and so many times as
large as these: it makes a probability 0. Of two logits one is often near 0 by chance, of four hardly ever three."""


def rounding_scale(logits: Tensor) -> Tensor:
    """The magnitude that the rounding of each logit of a row `[...,K]` goes by: the largest of the row.

    A class is switched off by a bias of -1e4, or a mask of -1e9. That is far beyond all others, so it goes by itself,
    and the others go by the largest of theirs. Numbers that are not finite count for none.

    >>> rounding_scale(torch.tensor([2.0, -3.0, 0.5, -1e9])).tolist()
    [3.0, 3.0, 3.0, 1000000000.0]
    """
    sizes = logits.detach().abs()
    largest = sizes.where(sizes.isfinite(), 0.0).amax(-1, keepdim=True)
    ordered = sizes.where(sizes.isfinite(), torch.inf).sort(-1).values
    below, above = ordered[..., :-1], ordered[..., 1:]
    num = (below > 0).cumsum(-1)
    gaps = torch.zeros_like(below, dtype=torch.bool)
    for beside, least, times in _FAR:
        gaps |= (num >= beside) & (above >= least) & (above >= times * below)
    ordinary = torch.cat([largest, below.where(gaps, largest)], -1).amin(-1, keepdim=True)
    return sizes.where(sizes.isfinite() & (sizes > ordinary), ordinary)


def differ(found: Tensor, own: Tensor, share: float, *, least: float = 0.0) -> Tensor:
    """Which rows of logits `[...,K]` differ from the `own` by more than rounding, a share of their scale (of `least` if
    that is more): boolean `[...]`. What is not finite must be the same.

    >>> own = torch.tensor([2.0, -3.0, 0.5, -1e9])
    >>> [bool(differ(own + torch.tensor([error, 0.0, 0.0, 100.0]), own, 1e-3)) for error in (1e-3, 1e-2)]
    [False, True]
    """
    is_near = (found - own).abs() <= share * rounding_scale(own).clamp(min=least)
    is_same = (found == own) | (found.isnan() & own.isnan())
    return ~(is_near | is_same).all(-1)
