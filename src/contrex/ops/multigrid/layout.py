"""How the pixels of one grid lie in memory, so that all of a colour can be relaxed at once.

The stencil couples a pixel to the other three places in a cell of 2x2 only, so all pixels of one place - a colour -
can be relaxed at once. Each colour is a plane of its own, of the size of the next coarser grid, with a border of one
cell that stays 0. Flat, a neighbour is a shift, and every operation one pass over contiguous memory. It is memory that
they wait for: hence a few images at a time, as many as a CPU's cache holds, and views that are made once.

Axes: N images of one channel, H W pixels, h w cells, k = 2a + b the colour of pixels in row a and column b of their
cells. Planes are `[N,4,L]`: L holds the (h+2) (w+2) cells and a margin at either end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CACHE = 2**14
"""Numbers of one colour that a CPU works on at a time; a GPU takes all."""


class Layout:
    """The places of the pixels `[N,H,W]` of one grid in planes `[N,4,L]`."""

    def __init__(self, images: Tensor) -> None:
        self.like, self.num, self.size = images, len(images), (images.shape[1], images.shape[2])
        self.cells = -(-self.size[0] // 2), -(-self.size[1] // 2)
        self.row = self.cells[1] + 2
        """Cells of a row, with the border."""
        self.inner = (self.cells[0] + 2) * self.row
        """Cells of a plane, with the border and without the margins."""
        self.margin = self.row + 2
        """Numbers before and after the cells, so that the shift to any neighbour stays inside the plane."""
        self.directions = [((self.row if k // 2 else -self.row), (1 if k % 2 else -1)) for k in range(4)]
        """For each colour the shift to the next cell, up or down and to the side, that it has neighbours in."""
        self.at_once = self.num if images.is_cuda else min(self.num, max(1, CACHE // self.inner))
        self.chunks = [slice(i, min(i + self.at_once, self.num)) for i in range(0, self.num, self.at_once)]

    def empty(self) -> Tensor:
        """Planes of zeros."""
        return self.like.new_zeros(self.num, 4, self.inner + 2 * self.margin)

    def cut(self, planes: Tensor, shift: int = 0, more: int = 0) -> Tensor:
        """A view of the cells without the margins, begun `shift` cells later, with `more` cells at either end."""
        start = self.margin + shift
        return planes[..., start - more : start + more + self.inner]

    def as_cells(self, plane: Tensor) -> Tensor:
        """A view of one colour, or of what belongs to cells, `[N,L]`, as `[N,h+2,w+2]`."""
        return self.cut(plane).view(len(plane), self.cells[0] + 2, self.row)

    def planes(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Images `[N,H,W]` sorted by colour into planes."""
        planes = self.empty()[: len(images)] if out is None else out
        for k in range(4):
            part = images[:, k // 2 :: 2, k % 2 :: 2]
            self.as_cells(planes[:, k])[:, 1 : part.shape[1] + 1, 1 : part.shape[2] + 1] = part
        return planes

    def image(self, planes: Tensor, out: Tensor | None = None) -> Tensor:
        """Images `[N,H,W]` made of planes again."""
        image = torch.empty_like(self.like) if out is None else out
        for k in range(4):
            part = image[:, k // 2 :: 2, k % 2 :: 2]
            part.copy_(self.as_cells(planes[:, k])[:, 1 : part.shape[1] + 1, 1 : part.shape[2] + 1])
        return image


class Around(NamedTuple):
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


class Planes:
    """Planes `[N,4,L]` with the views that sweeps need, made once: `around[chunk][k]`."""

    def __init__(self, layout: Layout) -> None:
        self.buffer = layout.empty()
        self.around = [[_around(layout, self.buffer[some], k) for k in range(4)] for some in layout.chunks]


def _around(layout: Layout, planes: Tensor, k: int) -> Around:
    cut, (down, across) = layout.cut, layout.directions[k]
    # Bit 0 of a colour is the column's parity and bit 1 the row's, so flipping a bit is a step to the side or down.
    own, in_row, in_column, opposite = (planes[:, k ^ other] for other in range(4))
    return Around(
        cut(own),
        cut(in_row),
        cut(in_row, across),
        cut(in_row, 0, 1),
        cut(in_column),
        cut(in_column, down),
        cut(opposite, 0, 1),
        cut(opposite, down, 1),
    )
