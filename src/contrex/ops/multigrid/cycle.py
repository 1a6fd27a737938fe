"""Corrections from ever coarser grids, and a first guess by them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from contrex.ops.multigrid.layout import Planes
from contrex.ops.multigrid.level import FORWARD, Level

_SWEEPS = 2
"""How often each coarse grid is swept on the way to the first guess."""


def run_cycle(levels: Sequence[Level], depth: int = 0) -> None:
    """Put an approximate solution of `A z = right` into the `correction` of the level at this depth."""
    level = levels[depth]
    if depth == len(levels) - 1:
        level.correction.buffer.zero_()
        torch.mul(level.layout.cut(level.right), level.weight, out=level.source)
        # Two by two pixels at most: sweeps in both orders solve that well enough.
        for _ in range(_SWEEPS):
            level.relax(level.correction, level.source, FORWARD)
            level.relax(level.correction, level.source, FORWARD[::-1])
        return
    level.descend()
    coarser = levels[depth + 1]
    coarser.layout.planes(level.cell_image(), out=coarser.right)
    run_cycle(levels, depth + 1)
    _interpolate(coarser, level, level.correction)
    level.relax(level.correction, level.source, FORWARD[::-1])


def add_first_guess(levels: Sequence[Level], known: Planes, mean: Tensor) -> None:
    """Add a filled hole to the known pixels, planes of the finest grid: from the coarsest grid up, some sweeps each.

    What a coarse grid knows is the mean of the known pixels of each cell.
    """
    values = known.buffer
    for level, coarser in pairwise(levels):
        cut, inside = level.layout.cut, (level.inside - level.hole).sum(dim=1).clamp_(min=1)
        torch.div(cut(values).sum(dim=1), inside, out=cut(level.on_cells))
        coarser.layout.planes(level.cell_image(), out=coarser.right)
        coarser.layout.cut(coarser.right).mul_(1 - coarser.hole)
        values = coarser.right
    last, cut = levels[-1], levels[-1].layout.cut
    torch.addcmul(cut(last.right), last.hole, mean, out=cut(last.correction.buffer))
    for depth in range(len(levels) - 1, 0, -1):
        level, finer = levels[depth], levels[depth - 1]
        for _ in range(_SWEEPS):
            level.relax(level.correction, level.layout.cut(level.right), FORWARD)
        if depth > 1:
            finer.correction.buffer.copy_(finer.right)
        _interpolate(level, finer, finer.correction if depth > 1 else known)


def _interpolate(coarser: Level, level: Level, planes: Planes) -> None:
    """Add the coarser grid's `correction` to the pixels of the hole, bilinearly."""
    coarser.layout.image(coarser.correction.buffer, out=level.cell_image())
    level.interpolate(planes)
