"""Rows of numbers that a metric keeps of each image, in one process or in several.

Axes: N images, D numbers of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex import ranks


class Rows:
    """Rows `[N,D]`, float64 on the CPU, in the order in which they were appended.

    >>> rows = Rows()
    >>> rows.append(torch.tensor([[1.0, 2.0]]))
    >>> rows.append(torch.tensor([[3.0, 4.0]]))
    >>> rows.own()
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def append(self, rows: Tensor) -> None:
        """Keep `rows [n,D]`. Sync point: they leave their device."""
        self._parts.append(rows.detach().to("cpu", torch.float64))

    def own(self) -> Tensor:
        """The rows of this process, `[N,D]`; `[0,0]` where there are none."""
        return _joined(self._parts)

    def every(self) -> Tensor:
        """The rows of all processes, in the order of their ranks; all must call it. Sync point: they exchange them."""
        return _joined(ranks.gathered(self.own()))

    def clear(self) -> None:
        """Forget all rows."""
        self._parts.clear()


def _joined(parts: list[Tensor]) -> Tensor:
    """The parts one below the other. A process without images does not know D, so its part is left out."""
    filled = [part for part in parts if part.numel()]
    return torch.cat(filled) if filled else torch.empty(0, 0, dtype=torch.float64, device="cpu")
