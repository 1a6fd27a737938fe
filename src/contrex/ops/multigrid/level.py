"""The equations of one grid: sweeps over the pixels of the hole, what they leave, and values between cells.

Axes as in `contrex.ops.multigrid.layout`; n images of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from contrex.ops.multigrid.layout import Around, Layout, Planes

FORWARD = (0, 3, 1, 2)
"""The order of the colours in the sweep before the coarser grid; after it they come in the opposite order."""


class _Views(NamedTuple):
    """Views for some images: memory for sums, the equations' numbers by colour, and what belongs to cells."""

    rows: Tensor
    total: Tensor
    middle: Tensor
    beside: Sequence[Tensor]
    hole: Sequence[Tensor]
    weight: Sequence[Tensor]
    diagonal: Sequence[Tensor]
    cells: Tensor
    cells_wide: Tensor
    cells_down: Sequence[Tensor]


class Level:
    """The equations of one grid, and memory to work in.

    `hole` is 1, `weight` 1 / diagonal and `diagonal` the sum of the weights in the hole, all three 0 elsewhere,
    `[N,4,.]` of the inner cells.
    """

    def __init__(self, images: Tensor) -> None:
        self.layout = layout = Layout(images)
        height, width = (_row_sums(size, like=images) for size in layout.size)
        # The weights are (1, 2, 1) x (1, 2, 1), the pixel's own 4 left out.
        degree = height[:, None] * width - 4
        share = torch.where(degree > 0, 1 / degree.clamp(min=1), 0.0)
        constant = (x[None].to(images) for x in (degree, share, torch.ones_like(degree)))
        self._degree, self._share, self.inside = (layout.cut(layout.planes(x)) for x in constant)
        self._missing = layout.empty()
        self.hole = layout.cut(self._missing)
        self.weight, self.diagonal, self.source = (self.hole.new_empty(self.hole.shape) for _ in range(3))
        self.correction = Planes(layout)
        self.right = layout.empty()
        self.on_cells = images.new_zeros(layout.num, layout.inner + 2 * layout.margin)
        """One number for each cell, `[N,L]`: the residual on the way down, the correction on the way up."""
        self._row_sum = images.new_empty(layout.at_once, layout.inner + 2)
        self._sum = images.new_empty(layout.at_once, layout.inner)
        self._views = [self._views_of(some) for some in layout.chunks]

    def set_hole(self, missing: Tensor) -> None:
        """Take on the equations of the hole `[N,H,W]`, 1 or 0."""
        self.layout.planes(missing, out=self._missing)
        torch.mul(self.hole, self._share, out=self.weight)
        torch.mul(self.hole, self._degree, out=self.diagonal)

    def relax(self, planes: Planes, source: Tensor, order: Sequence[int]) -> None:
        """Sweep once (Gauss-Seidel): `u_i = source_i + weight_i sum_j w_ij u_j`, colour after colour."""
        for index, some in enumerate(self.layout.chunks):
            self._relax(planes, source[some].unbind(1), index, order)

    def descend(self) -> None:
        """Sweep from zero into `correction`, and sum what that leaves of `right` over cells into `on_cells`.

        A colour that was relaxed is in balance until others change: its residual is what later ones add to it.
        """
        first, second, third, fourth = FORWARD
        for index, some in enumerate(self.layout.chunks):
            views, near = self._views[index], self.correction.around[index]
            weight, hole, cells = views.weight, views.hole, views.cells
            torch.mul(self.layout.cut(self.right[some]), self.weight[some], out=self.source[some])
            source = self.source[some].unbind(1)
            near[first].own.copy_(source[first])
            total = _diagonal_sum(views, near[second], second)
            torch.addcmul(source[second], weight[second], total, out=near[second].own)
            total = _half_direct_sum(views, near[third])
            torch.addcmul(source[third], weight[third], total, value=2, out=near[third].own)
            self._relax(self.correction, source, index, (fourth,))
            torch.mul(hole[third], _diagonal_sum(views, near[third], third), out=cells)
            cells.addcmul_(hole[second], _half_direct_sum(views, near[second]), value=2)
            cells.addcmul_(hole[first], _sum_around(views, near[first], first))

    def interpolate(self, planes: Planes) -> None:
        """Add what `on_cells` holds, bilinearly, to the pixels of the hole."""
        self._repeat_border()
        for views, around in zip(self._views, planes.around, strict=True):
            for k, near in enumerate(around):
                if k % 2 == 0:
                    # A pixel's centre lies a quarter of a cell from that of its own cell, towards the next one.
                    torch.lerp(views.cells_wide, views.cells_down[k], 0.25, out=views.rows)
                torch.lerp(views.middle, views.beside[k], 0.25, out=views.total)
                near.own.addcmul_(views.hole[k], views.total)

    def cell_image(self) -> Tensor:
        """A view of `on_cells` as `[N,h,w]`, an image of the next coarser grid."""
        return self.layout.as_cells(self.on_cells)[:, 1:-1, 1:-1]

    def apply(self, planes: Planes, index: int, out: Tensor) -> None:
        """Put `A u` in the hole into `out` for the images of a chunk; `out` is 0 elsewhere and stays so."""
        views, result = self._views[index], self.layout.cut(out[self.layout.chunks[index]])
        for k, near in enumerate(planes.around[index]):
            own = result[:, k]
            torch.mul(views.diagonal[k], near.own, out=own)
            own.addcmul_(views.hole[k], _sum_around(views, near, k), value=-1)

    def _relax(self, planes: Planes, source: Sequence[Tensor], index: int, order: Sequence[int]) -> None:
        near, views = planes.around[index], self._views[index]
        for k in order:
            torch.addcmul(source[k], views.weight[k], _sum_around(views, near[k], k), out=near[k].own)

    def _repeat_border(self) -> None:
        """Give what lies outside the image the value of the cell beside it."""
        cells, height, row = self.layout.as_cells(self.on_cells), self.layout.cells[0], self.layout.row
        cells[:, 1:-1, :: row - 1] = cells[:, 1:-1, 1 : -1 : max(row - 3, 1)]
        cells[:, :: height + 1] = cells[:, 1 : -1 : max(height - 1, 1)]

    def _views_of(self, some: slice) -> _Views:
        layout, num = self.layout, len(self.hole[some])
        rows, cells = self._row_sum[:num], self.on_cells[some]
        return _Views(
            rows,
            self._sum[:num],
            rows[:, 1:-1],
            [rows[:, 1 + across : 1 + across + layout.inner] for _, across in layout.directions],
            self.hole[some].unbind(1),
            self.weight[some].unbind(1),
            self.diagonal[some].unbind(1),
            layout.cut(cells),
            layout.cut(cells, 0, 1),
            [layout.cut(cells, down, 1) for down, _ in layout.directions],
        )


def _sum_around(views: _Views, near: Around, k: int) -> Tensor:
    """The weighted sum `sum_j w_ij u_j` of the eight neighbours of a colour, `[n,.]`; in the same memory every time."""
    torch.add(near.opposite_wide, near.beyond_wide, out=views.rows)
    views.rows.add_(near.in_row_wide, alpha=2)
    total = torch.add(views.middle, views.beside[k], out=views.total)
    return total.add_(near.above, alpha=2).add_(near.below, alpha=2)


def _diagonal_sum(views: _Views, near: Around, k: int) -> Tensor:
    """The part of `_sum_around` that diagonal neighbours have."""
    torch.add(near.opposite_wide, near.beyond_wide, out=views.rows)
    return torch.add(views.middle, views.beside[k], out=views.total)


def _half_direct_sum(views: _Views, near: Around) -> Tensor:
    """Half of the part of `_sum_around` that the neighbours in the same row and column have."""
    return torch.add(near.in_row, near.in_next, out=views.total).add_(near.above).add_(near.below)


def _row_sums(size: int, *, like: Tensor) -> Tensor:
    """The sum of the weights 1, 2, 1 at each of `size` places, those outside left out."""
    sums = torch.full((size,), 4.0, dtype=torch.float32, device=like.device)
    sums[0] -= 1
    sums[-1] -= 1
    return sums
