"""Filling the holes of images: steps of conjugate gradients, each after a multigrid cycle.

Axes: N images of one channel, H W pixels, h w cells of 2x2 pixels, n images of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from contrex.ops.multigrid.cycle import add_first_guess, run_cycle
from contrex.ops.multigrid.layout import Planes
from contrex.ops.multigrid.level import Level


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
        self.levels = [Level(images)]
        while max(self.levels[-1].layout.size) > 2:
            self.levels.append(Level(images.new_empty(len(images), *self.levels[-1].layout.cells)))
        finest = self.levels[0]
        self.filled, self.direction, self.change = Planes(finest.layout), Planes(finest.layout), finest.layout.empty()

    def __call__(self, removed: Tensor) -> Tensor:
        """The images `[N,H,W]` with the pixels of the boolean `removed` `[N,H,W]` filled."""
        finest, mean = self.levels[0], _mean_of_kept(self.images, removed)[:, None, None]
        bare = removed.all(dim=(1, 2), keepdim=True)  # any constant solves it
        hole = (removed & ~bare).to(self.images)
        for level in self.levels:
            level.set_hole(hole)
            hole = _missing_cells(hole)
        finest.layout.planes(torch.where(bare, mean, self.images.masked_fill(removed, 0)), out=self.filled.buffer)
        add_first_guess(self.levels, self.filled, mean)
        for index, _ in enumerate(finest.layout.chunks):
            finest.apply(self.filled, index, finest.right)
        finest.right.neg_()
        curvature = None
        for _ in range(self.max_steps):
            run_cycle(self.levels)
            curvature, size = self._step(curvature)
            if bool((size <= self.limit).all()):  # sync point: the sizes leave the device
                break
        return finest.layout.image(self.filled.buffer)

    def _step(self, old_curvature: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take a step, each image of its own length; gives `p^T A p` `[N,1,1]` and the largest corrections `[N]`."""
        finest, curvatures, sizes = self.levels[0], [], []
        for index, some in enumerate(finest.layout.chunks):
            z, r, p, q = (x[some] for x in (finest.correction.buffer, finest.right, self.direction.buffer, self.change))
            if old_curvature is None:
                p.copy_(z)
            else:
                # p = z - (z, A p_old) / (p_old, A p_old) p_old, with A p_old still in q: conjugate to the last step
                # whatever z is. The usual formula takes a symmetric cycle for granted.
                torch.addcmul(z, p, -_ratio(_dot(z, q), old_curvature[some]), out=p)
            finest.apply(self.direction, index, self.change)
            curvature = _dot(p, q)
            # The minimum along p.
            length = _ratio(_dot(p, r), curvature)
            self.filled.buffer[some].addcmul_(p, length)
            r.addcmul_(q, length, value=-1)
            curvatures.append(curvature)
            low, high = torch.aminmax(z.flatten(1), dim=1)
            sizes.append(torch.maximum(high, -low))
        return torch.cat(curvatures), torch.cat(sizes)


def _missing_cells(hole: Tensor) -> Tensor:
    """The hole of the next coarser grid, `[N,h,w]`: 1 for the cells all of whose pixels are missing."""
    whole = pad(hole, (0, hole.shape[2] % 2, 0, hole.shape[1] % 2), value=1.0)
    top, bottom = whole[:, ::2], whole[:, 1::2]
    return top[..., ::2] * top[..., 1::2] * bottom[..., ::2] * bottom[..., 1::2]


def _mean_of_kept(images: Tensor, removed: Tensor) -> Tensor:
    """The mean of the kept pixels of each image, `[N]`; of all its pixels where none is kept."""
    number = (~removed).sum(dim=(1, 2))
    mean = images.masked_fill(removed, 0).sum(dim=(1, 2)) / number.clamp(min=1)
    return torch.where(number > 0, mean, images.mean(dim=(1, 2)))


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """The inner product of the planes of each image, `[n,1,1]`."""
    return first.flatten(1)[:, None] @ second.flatten(1)[:, :, None]


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """`first / second`, 0 where an image has converged to the last digit."""
    return torch.where(second > 0, first / second.where(second > 0, 1.0), 0.0)
