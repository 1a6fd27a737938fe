"""Heatmaps as if at image size, and the cosine similarities of such maps, without making one.

Bilinear upsampling, crop, resize and flip are linear and separable. With U [S,h] the upsampling matrix and V_i [S,h]
the same followed by the transform T_i, a map a [h,w] becomes `U a U^T` or `V_i a V_i^T`, and every inner product that a
cosine needs is one of h x h matrices:

    < V_i a V_i^T , U b U^T > = sum( a * (V_i^T U) b (V_i^T U)^T )

A constant map is unchanged by T, so an eps added to every pixel only adds rank-one terms, and stays exact.

Legend: N maps, M other maps, h w heatmap cells, S side of the enlarged map (S_y, S_x when not square).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contrex.ops import geometry
from contrex.ops.geometry import Crop


@dataclass(frozen=True, eq=False)
class Enlarged:
    """Heatmaps as if at S x S: `scale * Y a X^T + eps`, kept as their parts.

    `cells` is `a` [N,h,w]; `rows`, `columns` are Y [N or 1,S,h], X [N or 1,S,w]; `scale` is [N].
    """

    cells: Tensor
    rows: Tensor
    columns: Tensor
    scale: Tensor
    eps: float = 0.0

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def num_pixels(self) -> int:
        """How many pixels an enlarged map has, S_y S_x."""
        return self.rows.shape[1] * self.columns.shape[1]

    def total(self) -> Tensor:
        """The sum over pixels `[N]` of the scaled map, without eps."""
        return self.scale * torch.einsum("nh,nhw,nw->n", self._ones(self.rows), self.cells, self._ones(self.columns))

    def norm(self) -> Tensor:
        """The L2 norm over pixels `[N]`, with eps."""
        # |s U + eps|^2 = s^2 <U, U> + 2 eps sum(s U) + eps^2 S_y S_x with U = Y a X^T, and <U, U> = <a, (Y^T Y) a (X^T
        # X)>: no map of the image's size is made.
        squared = (self.cells * (self._gram(self.rows) @ self.cells @ self._gram(self.columns))).sum((1, 2))
        return (self.scale**2 * squared + 2 * self.eps * self.total() + self.eps**2 * self.num_pixels).sqrt()

    def seen_by(self, other: Enlarged) -> Tensor:
        """The cells pulled through both resizings, `Y_o^T Y a X^T X_o` [N,h,w]: their product with the other's cells,
        summed, is the inner product of the two large maps."""
        return (other.rows.mT @ self.rows) @ self.cells @ (self.columns.mT @ other.columns)

    def _ones(self, matrix: Tensor) -> Tensor:
        return matrix.sum(1).expand(len(self), -1)

    def _gram(self, matrix: Tensor) -> Tensor:
        return matrix.mT @ matrix


def similarity(query: Enlarged, key: Enlarged) -> Tensor:
    """Cosine similarities `[N,M]` of every query with every key; all keys must share one pair of matrices."""
    # <s U + eps, s' U' + eps>, expanded as in `norm`; all keys share Y and X, so the inner products are one matrix
    # product.
    inner = query.seen_by(key).flatten(1) @ key.cells.flatten(1).T
    cross = query.eps * (query.total()[:, None] + key.total()[None, :])
    product = query.scale[:, None] * key.scale[None, :] * inner + cross + query.eps**2 * query.num_pixels
    return product / (query.norm()[:, None] * key.norm()[None, :])


def positive_similarity(query: Enlarged, key: Enlarged) -> Tensor:
    """Cosine similarities `[N]` of query i with key i."""
    inner = (query.seen_by(key) * key.cells).sum((1, 2))
    cross = query.eps * (query.total() + key.total())
    product = query.scale * key.scale * inner + cross + query.eps**2 * query.num_pixels
    return product / (query.norm() * key.norm())


def upsampling_matrices(cells: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The matrices `U_y [S_y,h]`, `U_x [S_x,w]` that enlarge maps `cells` [N,h,w]."""
    rows, columns = (
        geometry.upsampling_matrix(cells.shape[1 + axis], side, like=cells) for axis, side in enumerate(size)
    )
    return rows, columns


def transformed_matrices(rows: Tensor, columns: Tensor, crop: Crop, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The matrices `V_y [N,S_y,h]`, `V_x [N,S_x,w]` that enlarge by `rows` and `columns` and then crop."""
    row_positions, column_positions = geometry.warp_positions(crop, size, like=rows)
    return geometry.interpolate_rows(rows, row_positions), geometry.interpolate_rows(columns, column_positions)
