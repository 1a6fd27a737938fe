"""The grid pointing game: how much of a class' heat lies on the image of that class, in a grid of images.

Axes: N grids, S x S cells, M = S S classes that are explained, one for each cell, h w the heatmap at layer size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_finite


def grid_pointing_game(heatmaps: Tensor, *, resized_to: tuple[int, int] | None = None) -> Tensor:
    """Share of each heatmap's positive heat that lies in the cell of its class, in %.

    `G_nm = 100 * sum_{p in cell m} relu(heatmap_nm[p]) / sum_p relu(heatmap_nm[p])`, cells row by row; a cell of the
    heatmap that the border of two grid cells cuts through counts for each by its area.

    Boehle, Fritz and Schiele, "Convolutional Dynamic Alignment Networks" (CVPR 2021, section 4.2, the "localisation
    metric"); Rao et al., "Towards Better Understanding Attribution Methods" (CVPR 2022), call it GridPG. *Deviations*:
    the cells are those of the map at layer size, so that heat in the right cell alone is 100 %; Rao et al. resize maps
    bilinearly to the grid first, which lets some of it run over the borders (`resized_to` does the same). A map without
    positive heat is NaN, so that it is skipped and counted; there it is 0.

    Args:
        heatmaps: raw signed maps `[N,M,h,w]` of grids of `sqrt(M)` x `sqrt(M)` images; map m is that of the class in
            cell m.
        resized_to: `(H, W)` of the grid's picture, to which maps are resized before their negative values go.

    Returns:
        float64 `[N,M]` on the heatmaps' device, in 0..100; a uniform map has `100 / M`.

    Raises:
        ArgumentError: M is no square of 2 or more, or a map is not finite.

    >>> right, uniform = torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 2, 2)
    >>> right[0, 0, 1, 1] = right[0, 1, 0, 2] = right[0, 2, 3, 0] = right[0, 3, 2, 2] = 1
    >>> grid_pointing_game(right), grid_pointing_game(uniform)
    (tensor([[100., 100., 100., 100.]], dtype=torch.float64), tensor([[25., 25., 25., 25.]], dtype=torch.float64))
    """
    side = math.isqrt(heatmaps.shape[1]) if heatmaps.ndim == 4 else 0
    if side < 2 or side**2 != heatmaps.shape[1]:
        raise ArgumentError(
            f"`heatmaps` must be [N,M,h,w] with a map for each of M = 4, 9, 16 ... cells, got {list(heatmaps.shape)}."
        )
    if resized_to is not None and min(resized_to) < 1:
        raise ArgumentError(f"`resized_to` must be at least 1 pixel on each side, got {resized_to}.")
    check_finite("heatmaps", heatmaps)
    maps = heatmaps.detach().double()
    if resized_to is not None:
        maps = interpolate(maps, size=resized_to, mode="bilinear", align_corners=False)
    maps = maps.relu()
    # Divided by the largest value, so that sums neither overflow nor lose small maps; 0 / 0 is NaN.
    maps = maps / maps.amax(dim=(2, 3), keepdim=True)
    rows, columns = (cell_shares(size, side).to(maps) for size in maps.shape[2:])
    heat = (rows @ maps @ columns.T).flatten(2)  # [N,M,M]: of each class' map, the heat in each cell
    shares: Tensor = 100 * (heat.diagonal(dim1=1, dim2=2) / heat.sum(dim=2))
    return shares


def cell_shares(size: int, side: int) -> Tensor:
    """Which part of each of `size` equal lengths lies in each of `side` equal ones, float64 `[side,size]`.

    >>> cell_shares(3, 2)
    tensor([[1.0000, 0.5000, 0.0000],
            [0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    # In whole numbers, of which `side` make one length: borders that coincide do so exactly.
    ends = torch.arange(size + 1, device="cpu") * side
    borders = torch.arange(side + 1, device="cpu")[:, None] * size
    overlap = torch.minimum(ends[1:], borders[1:]) - torch.maximum(ends[:-1], borders[:-1])
    return overlap.clamp(min=0).double() / side


class GridPointingGame(PerSampleMetric):
    """Mean share of a class' heat on its own image in %, higher is better: `grid_pointing_game`.

    Named `grid_pointing_game_<side>`. Images that are in no grid are counted apart from those with an empty heatmap.

    >>> metric = GridPointingGame(size=2)
    >>> metric.update(torch.tensor([80.0, torch.nan, torch.nan]), torch.tensor([True, True, False]))
    >>> metric.name, metric.compute().item(), metric.describe_skipped()
    ('grid_pointing_game_2', 80.0, '1 in no grid, 1 with an empty heatmap (no positive value)')
    """

    unit = "%"
    higher_is_better = True
    skip_reason = "in no grid, or an empty heatmap (no positive value)"
    num_columns = 2  # the value, and 1 where the image is in a grid

    def __init__(self, *, size: int = 3) -> None:
        if size < 2:
            raise ArgumentError(f"`size` must be at least 2 images on each side of the grid, got {size}: 3 is usual.")
        self.name = f"grid_pointing_game_{size}"
        self.title = f"Grid pointing game, {size} x {size}"
        self.dims = {"size": size}
        super().__init__()

    def update(self, values: Tensor, in_grid: Tensor) -> None:
        """Count images: their `values [N]` and whether each is in a grid, boolean `[N]`; NaN where it is not."""
        self.append(values, in_grid)

    def describe_skipped(self) -> str:
        """How many images were skipped for which reason; empty when none was."""
        values, in_grid = self.rows().unbind(1)
        outside = int((in_grid == 0).sum())
        reasons = {
            "in no grid": outside,
            "with an empty heatmap (no positive value)": int(values.isnan().sum()) - outside,
        }
        return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
