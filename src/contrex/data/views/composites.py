"""Composites: images in a grid, such as an image among three of other classes, in two by two cells (GCC, AAAI 2021).

    cells   0 1
            2 3

Legend: N images, S side of one in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contrex.data.views.company import NUM_PARTNERS
from contrex.errors import ArgumentError

NUM_CELLS = 1 + NUM_PARTNERS


def composites(views: Tensor, partners: Tensor, cells: Tensor) -> Tensor:
    """The composites `[N,3,2S,2S]` of `views` [N,3,S,S], each in its cell, and `partners` [3N,3,S,S] in the others.

    `cells` int64 [N] are numbers from 0 to 3. Partners fill the free cells in their order. Pixels are only moved.

    >>> views, partners = torch.ones(1, 1, 1, 1), torch.tensor([2.0, 3, 4]).view(3, 1, 1, 1)
    >>> composites(views, partners, torch.tensor([2]))[0, 0]
    tensor([[2., 3.],
            [1., 4.]])
    """
    num, channels, height, width = views.shape
    if partners.shape != (NUM_PARTNERS * num, channels, height, width):
        expected = [NUM_PARTNERS * num, channels, height, width]
        raise ArgumentError(f"`partners` must be three images of the views' size for each view, {expected}; got "
                            f"{list(partners.shape)}.")  # fmt: skip
    tiles = torch.cat([views[:, None], partners.view(num, NUM_PARTNERS, channels, height, width)], 1)
    place = torch.arange(NUM_CELLS, device=cells.device)
    # Tile 0 is the view; partners, tiles 1 to 3, fill the other cells, those before the view's moved on by one.
    source = torch.where(place == cells[:, None], 0, place + (place < cells[:, None]))
    layout = torch.channels_last if views.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return in_grid(tiles[torch.arange(num, device=views.device)[:, None], source]).contiguous(memory_format=layout)


def in_grid(tiles: Tensor) -> Tensor:
    """The pictures `[N,C,G H,G W]` of grids of G x G `tiles` [N,G G,C,H,W], row by row. Pixels are only moved.

    >>> in_grid(torch.arange(4.0).view(1, 4, 1, 1, 1))[0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    num, num_cells, channels, height, width = tiles.shape
    side = math.isqrt(num_cells)
    grid = tiles.view(num, side, side, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(num, channels, side * height, side * width)
