"""Laplace's equation in the holes of images, by conjugate gradients with a multigrid cycle as preconditioner.

Each missing pixel is to be the weighted mean of its neighbours: `A u = 0` in the hole, the known pixels given, with
`A u = sum_j w_ij (u_i - u_j)`, w = 2 for direct and 1 for diagonal neighbours inside the image.

*Cycle* (Brandt 1977): one Gauss-Seidel sweep, the residual summed over cells of 2x2 pixels, the same on the grid of
cells, its correction interpolated bilinearly, a sweep in the opposite order. The equations of cells are those of
pixels; a cell is missing where all its pixels are, so a coarse grid never moves what is known. The cycle is not
quite symmetric, so a step is made conjugate to the one before it, not by the usual formula, which assumes symmetry.

*Layout.* The stencil couples a pixel to the other three places in a cell only, so all pixels of one place - a
colour - can be relaxed at once. Each colour is a plane of its own, of the size of the next coarser grid, with a
border of one cell that stays 0. Flat, a neighbour is a shift, and every operation below one pass over contiguous
memory. It is memory that they wait for: hence a few images at a time, as many as a CPU's cache holds, and views
that are made once.

Axes: N images of one channel, H W pixels, h w cells, k = 2a + b the colour of pixels in row a and column b of their
cells. Planes are `[N,4,L]`: L holds the (h+2) (w+2) cells and a margin at either end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

_FORWARD = (0, 3, 1, 2)
"""The order of the colours in the sweep before the coarser grid; after it they come in the opposite order."""

_SWEEPS = 2
"""Of each coarse grid on the way to the first guess."""

_CACHE = 2**14
"""Numbers of one colour that a CPU works on at a time; a GPU takes all."""


class HarmonicFill:
    """Fills holes of some images, any number of times, in memory that is made once.

    Each removed pixel becomes the weighted mean of its neighbours; where no pixel is kept, the image's mean. Steps are
    taken until the last one moved no pixel of any image by more than its `limit`, or `max_steps`: where the limit is
    below what the dtype can tell.

    Args:
        images: `[N,H,W]`, float32 or float64, finite.
        limit: `[N]`.
        max_steps: at least 1.
    """

    def __init__(self, images: Tensor, limit: Tensor, *, max_steps: int) -> None:
        self.images, self.limit, self.max_steps = images, limit, max_steps
        self.levels = [_Level(images)]
        while max(self.levels[-1].size) > 2:
            self.levels.append(_Level(images.new_empty(len(images), *self.levels[-1].cells)))
        finest = self.levels[0]
        self.filled, self.direction, self.change = _Planes(finest), _Planes(finest), finest.empty()

    def __call__(self, removed: Tensor) -> Tensor:
        """The images `[N,H,W]` with the pixels of the boolean `removed` `[N,H,W]` filled."""
        finest, mean = self.levels[0], _mean_of_kept(self.images, removed)[:, None, None]
        bare = removed.all(dim=(1, 2), keepdim=True)  # any constant solves it
        hole = (removed & ~bare).to(self.images)
        for level in self.levels:
            level.set_hole(hole)
            hole = _missing_cells(hole)
        finest.planes(torch.where(bare, mean, self.images.masked_fill(removed, 0)), out=self.filled.buffer)
        _first_guess(self.levels, self.filled, mean)
        for index, _ in enumerate(finest.chunks):
            finest.apply(self.filled, index, finest.right)
        finest.right.neg_()
        curvature = None
        for _ in range(self.max_steps):
            _cycle(self.levels, 0)
            curvature, size = self._step(curvature)
            if bool((size <= self.limit).all()):
                break
        return finest.image(self.filled.buffer)

    def _step(self, old_curvature: Tensor | None) -> tuple[Tensor, Tensor]:
        """A step of conjugate gradients, each image with its own; `p^T A p` `[N,1,1]` and largest corrections `[N]`."""
        finest, curvatures, sizes = self.levels[0], [], []
        for index, some in enumerate(finest.chunks):
            z, r, p, q = (x[some] for x in (finest.correction.buffer, finest.right, self.direction.buffer, self.change))
            if old_curvature is None:
                p.copy_(z)
            else:
                torch.addcmul(z, p, -_ratio(_dot(z, q), old_curvature[some]), out=p)
            finest.apply(self.direction, index, self.change)
            curvature = _dot(p, q)
            length = _ratio(_dot(p, r), curvature)
            self.filled.buffer[some].addcmul_(p, length)
            r.addcmul_(q, length, value=-1)
            curvatures.append(curvature)
            low, high = torch.aminmax(z.flatten(1), dim=1)
            sizes.append(torch.maximum(high, -low))
        return torch.cat(curvatures), torch.cat(sizes)


class _Around(NamedTuple):
    """Views of what surrounds one colour of some images.

    The neighbours in the same row, those above and below, and those diagonally opposite: of each the one in the same
    cell and the one in the next cell. `wide` has a cell more at either end.
    """

    own: Tensor
    in_row: Tensor
    in_next: Tensor
    in_row_wide: Tensor
    above: Tensor
    below: Tensor
    opposite_wide: Tensor
    beyond_wide: Tensor


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


class _Planes:
    """Planes `[N,4,L]` with the views that sweeps need, made once: `around[chunk][k]`."""

    def __init__(self, level: _Level, buffer: Tensor | None = None) -> None:
        self.buffer = level.empty() if buffer is None else buffer
        self.around = [[self._around(level, self.buffer[some], k) for k in range(4)] for some in level.chunks]

    @staticmethod
    def _around(level: _Level, planes: Tensor, k: int) -> _Around:
        cut, (down, across) = level.cut, level.directions[k]
        own, in_row, in_column, opposite = (planes[:, k ^ other] for other in range(4))
        return _Around(
            cut(own),
            cut(in_row),
            cut(in_row, across),
            cut(in_row, 0, 1),
            cut(in_column),
            cut(in_column, down),
            cut(opposite, 0, 1),
            cut(opposite, down, 1),
        )


class _Level:
    """The equations of one grid, and memory to work in.

    `hole` is 1, `weight` 1 / diagonal and `diagonal` the sum of the weights in the hole, all three 0 elsewhere,
    `[N,4,.]` of the inner cells.
    """

    def __init__(self, images: Tensor) -> None:
        self.like, self.num, self.size = images, len(images), (images.shape[1], images.shape[2])
        self.cells = -(-self.size[0] // 2), -(-self.size[1] // 2)
        self.row = self.cells[1] + 2
        self.inner = (self.cells[0] + 2) * self.row
        self.directions = [((self.row if k // 2 else -self.row), (1 if k % 2 else -1)) for k in range(4)]
        at_once = self.num if images.is_cuda else min(self.num, max(1, _CACHE // self.inner))
        self.chunks = [slice(i, min(i + at_once, self.num)) for i in range(0, self.num, at_once)]
        height, width = (_row_sums(size, like=images) for size in self.size)
        degree = height[:, None] * width - 4
        share = torch.where(degree > 0, 1 / degree.clamp(min=1), 0.0)
        constant = (x[None].to(images) for x in (degree, share, torch.ones_like(degree)))
        self._degree, self._share, self.inside = (self.cut(self.planes(x)) for x in constant)
        self._missing = self.empty()
        self.hole = self.cut(self._missing)
        self.weight, self.diagonal, self.source = (self.hole.new_empty(self.hole.shape) for _ in range(3))
        self.correction = _Planes(self)
        self.right = self.empty()
        self.on_cells = images.new_zeros(self.num, self.inner + 2 * (self.row + 2))
        """One number for each cell, `[N,L]`: the residual on the way down, the correction on the way up."""
        self._row_sum, self._sum = images.new_empty(at_once, self.inner + 2), images.new_empty(at_once, self.inner)
        self._views = [self._views_of(some) for some in self.chunks]

    def set_hole(self, missing: Tensor) -> None:
        """Take on the equations of the hole `[N,H,W]`, 1 or 0."""
        self.planes(missing, out=self._missing)
        torch.mul(self.hole, self._share, out=self.weight)
        torch.mul(self.hole, self._degree, out=self.diagonal)

    def empty(self) -> Tensor:
        """Planes of zeros."""
        return self.like.new_zeros(self.num, 4, self.inner + 2 * (self.row + 2))

    def cut(self, planes: Tensor, shift: int = 0, more: int = 0) -> Tensor:
        """The cells without the margins, `shift` further on, `more` at either end."""
        start = self.row + 2 + shift
        return planes[..., start - more : start + more + self.inner]

    def as_cells(self, plane: Tensor) -> Tensor:
        """One colour, or what belongs to cells, `[N,L]` as `[N,h+2,w+2]`."""
        return self.cut(plane).view(len(plane), self.cells[0] + 2, self.row)

    def planes(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """`[N,H,W]` by colour."""
        planes = self.empty()[: len(images)] if out is None else out
        for k in range(4):
            part = images[:, k // 2 :: 2, k % 2 :: 2]
            self.as_cells(planes[:, k])[:, 1 : part.shape[1] + 1, 1 : part.shape[2] + 1] = part
        return planes

    def image(self, planes: Tensor, out: Tensor | None = None) -> Tensor:
        """The opposite of `planes`."""
        image = torch.empty_like(self.like) if out is None else out
        for k in range(4):
            part = image[:, k // 2 :: 2, k % 2 :: 2]
            part.copy_(self.as_cells(planes[:, k])[:, 1 : part.shape[1] + 1, 1 : part.shape[2] + 1])
        return image

    def _views_of(self, some: slice) -> _Views:
        num = len(self.hole[some])
        rows, cells = self._row_sum[:num], self.on_cells[some]
        return _Views(
            rows,
            self._sum[:num],
            rows[:, 1:-1],
            [rows[:, 1 + across : 1 + across + self.inner] for _, across in self.directions],
            self.hole[some].unbind(1),
            self.weight[some].unbind(1),
            self.diagonal[some].unbind(1),
            self.cut(cells),
            self.cut(cells, 0, 1),
            [self.cut(cells, down, 1) for down, _ in self.directions],
        )

    def sum_around(self, index: int, near: _Around, k: int) -> Tensor:
        """`sum_j w_ij u_j` of all eight neighbours, `[n,.]`; the same memory every time."""
        views = self._views[index]
        torch.add(near.opposite_wide, near.beyond_wide, out=views.rows)
        views.rows.add_(near.in_row_wide, alpha=2)
        total = torch.add(views.middle, views.beside[k], out=views.total)
        return total.add_(near.above, alpha=2).add_(near.below, alpha=2)

    def sum_diagonal(self, index: int, near: _Around, k: int) -> Tensor:
        """The same of the diagonal neighbours alone."""
        views = self._views[index]
        torch.add(near.opposite_wide, near.beyond_wide, out=views.rows)
        return torch.add(views.middle, views.beside[k], out=views.total)

    def half_sum_beside(self, index: int, near: _Around) -> Tensor:
        """Half of the same of those in the same row and column alone."""
        total = self._views[index].total
        return torch.add(near.in_row, near.in_next, out=total).add_(near.above).add_(near.below)

    def relax(self, planes: _Planes, source: Tensor, order: Sequence[int]) -> None:
        """One Gauss-Seidel sweep: `u_i = source_i + weight_i sum_j w_ij u_j`, colour after colour."""
        for index, some in enumerate(self.chunks):
            self._relax(planes, source[some].unbind(1), index, order)

    def _relax(self, planes: _Planes, source: Sequence[Tensor], index: int, order: Sequence[int]) -> None:
        near, weight = planes.around[index], self._views[index].weight
        for k in order:
            torch.addcmul(source[k], weight[k], self.sum_around(index, near[k], k), out=near[k].own)

    def descend(self) -> None:
        """A sweep from zero, into `correction`, and what it leaves of `right`, summed over cells, into `on_cells`.

        A colour that was relaxed is in balance until others change: its residual is what later ones add to it.
        """
        first, second, third, fourth = _FORWARD
        for index, some in enumerate(self.chunks):
            views, near = self._views[index], self.correction.around[index]
            weight, hole, cells = views.weight, views.hole, views.cells
            torch.mul(self.cut(self.right[some]), self.weight[some], out=self.source[some])
            source = self.source[some].unbind(1)
            near[first].own.copy_(source[first])
            total = self.sum_diagonal(index, near[second], second)
            torch.addcmul(source[second], weight[second], total, out=near[second].own)
            total = self.half_sum_beside(index, near[third])
            torch.addcmul(source[third], weight[third], total, value=2, out=near[third].own)
            self._relax(self.correction, source, index, (fourth,))
            torch.mul(hole[third], self.sum_diagonal(index, near[third], third), out=cells)
            cells.addcmul_(hole[second], self.half_sum_beside(index, near[second]), value=2)
            cells.addcmul_(hole[first], self.sum_around(index, near[first], first))

    def interpolate(self, planes: _Planes, index: int) -> None:
        """Add bilinear values of `on_cells` to the pixels of the hole."""
        views, near = self._views[index], planes.around[index]
        for k in range(4):
            if k % 2 == 0:
                torch.lerp(views.cells_wide, views.cells_down[k], 0.25, out=views.rows)
            torch.lerp(views.middle, views.beside[k], 0.25, out=views.total)
            near[k].own.addcmul_(views.hole[k], views.total)

    def cell_image(self) -> Tensor:
        """`on_cells` as `[N,h,w]`, a view."""
        return self.as_cells(self.on_cells)[:, 1:-1, 1:-1]

    def repeat_border(self) -> None:
        """What lies outside the image has the value of the cell beside it."""
        cells = self.as_cells(self.on_cells)
        cells[:, 1:-1, :: self.row - 1] = cells[:, 1:-1, 1 : -1 : max(self.row - 3, 1)]
        cells[:, :: self.cells[0] + 1] = cells[:, 1 : -1 : max(self.cells[0] - 1, 1)]

    def apply(self, planes: _Planes, index: int, out: Tensor) -> None:
        """`A u` in the hole for the images of a chunk; `out` is 0 elsewhere and stays so."""
        views, result = self._views[index], self.cut(out[self.chunks[index]])
        for k, near in enumerate(planes.around[index]):
            own = result[:, k]
            torch.mul(views.diagonal[k], near.own, out=own)
            own.addcmul_(views.hole[k], self.sum_around(index, near, k), value=-1)


def _cycle(levels: Sequence[_Level], depth: int) -> None:
    """Put an approximate solution of `A z = right` into the level's `correction`."""
    level = levels[depth]
    if depth == len(levels) - 1:
        level.correction.buffer.zero_()
        torch.mul(level.cut(level.right), level.weight, out=level.source)
        for _ in range(_SWEEPS):
            level.relax(level.correction, level.source, _FORWARD)
            level.relax(level.correction, level.source, _FORWARD[::-1])
        return
    level.descend()
    coarser = levels[depth + 1]
    coarser.planes(level.cell_image(), out=coarser.right)
    _cycle(levels, depth + 1)
    _interpolate(coarser, level, level.correction)
    level.relax(level.correction, level.source, _FORWARD[::-1])


def _first_guess(levels: Sequence[_Level], known: _Planes, mean: Tensor) -> None:
    """Add a filled hole to the known pixels, planes of the finest grid: from the coarsest grid up, some sweeps each.

    What a coarse grid knows is the mean of the known pixels of each cell.
    """
    values = known.buffer
    for level, coarser in pairwise(levels):
        inside = (level.inside - level.hole).sum(dim=1).clamp_(min=1)
        torch.div(level.cut(values).sum(dim=1), inside, out=level.cut(level.on_cells))
        coarser.planes(level.cell_image(), out=coarser.right)
        coarser.cut(coarser.right).mul_(1 - coarser.hole)
        values = coarser.right
    last = levels[-1]
    torch.addcmul(last.cut(last.right), last.hole, mean, out=last.cut(last.correction.buffer))
    for depth in range(len(levels) - 1, 0, -1):
        level, finer = levels[depth], levels[depth - 1]
        for _ in range(_SWEEPS):
            level.relax(level.correction, level.cut(level.right), _FORWARD)
        if depth > 1:
            finer.correction.buffer.copy_(finer.right)
        _interpolate(level, finer, finer.correction if depth > 1 else known)


def _interpolate(coarser: _Level, level: _Level, planes: _Planes) -> None:
    """Add the coarser grid's `correction` to the pixels of the hole, bilinearly."""
    coarser.image(coarser.correction.buffer, out=level.cell_image())
    level.repeat_border()
    for index in range(len(level.chunks)):
        level.interpolate(planes, index)


def _missing_cells(hole: Tensor) -> Tensor:
    """1 for the cells all of whose pixels are missing, `[N,h,w]`."""
    whole = pad(hole, (0, hole.shape[2] % 2, 0, hole.shape[1] % 2), value=1.0)
    top, bottom = whole[:, ::2], whole[:, 1::2]
    return top[..., ::2] * top[..., 1::2] * bottom[..., ::2] * bottom[..., 1::2]


def _row_sums(size: int, *, like: Tensor) -> Tensor:
    """The sum of the weights 1, 2, 1 at each of `size` places, those outside left out."""
    sums = torch.full((size,), 4.0, dtype=torch.float32, device=like.device)
    sums[0] -= 1
    sums[-1] -= 1
    return sums


def _mean_of_kept(images: Tensor, removed: Tensor) -> Tensor:
    """`[N]`; the mean of all pixels where none is kept."""
    number = (~removed).sum(dim=(1, 2))
    mean = images.masked_fill(removed, 0).sum(dim=(1, 2)) / number.clamp(min=1)
    return torch.where(number > 0, mean, images.mean(dim=(1, 2)))


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """`[n,1,1]`."""
    return first.flatten(1)[:, None] @ second.flatten(1)[:, :, None]


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """`first / second`, 0 where an image has converged to the last digit."""
    return torch.where(second > 0, first / second.where(second > 0, 1.0), 0.0)
