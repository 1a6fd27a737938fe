"""What the axes of a tensor are: rows and columns of a grid, tokens, channels.

An axis is a list of factors, the slowest first, as in einops: patches of 16 pixels split the rows [h, size 224, stride
1] into [h, 14, 16] and [h, 16, 1]; the first is a coarser grid, the second goes into the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

SIDES = ("d", "h", "w")
"""The roles of the axes of a grid: depth, rows, columns."""
ROLES = {3: "ncw", 4: "nchw", 5: "ncdhw"}
"""The axes of images by their number: of signals, pictures and volumes."""


class Factor(NamedTuple):
    """A part of an axis: `role` is images n, rows h, columns w (places of a signal too), the depth d of a volume, or c
    for anything else, channels above all.

    Copies, which repeat an entry, have the role r. `whole` is how many rows or columns there were before they were
    split; 0: they were not. `cut` are the shares of the image's side in front and behind that were cut off, little
    enough for the rest to be taken for the whole.
    """

    role: str
    size: int
    stride: int = 1
    whole: int = 0
    cut: tuple[float, float] = (0.0, 0.0)

    @property
    def is_coarsest(self) -> bool:
        """Whether the part goes from one end of the image to the other."""
        return self.whole in (0, self.size * self.stride)

    @property
    def is_grid(self) -> bool:
        """Whether the part is all rows, all columns, or all of the depth."""
        return self.role in SIDES and self.is_coarsest and self.stride == 1

    @property
    def like(self) -> tuple[str, int, float]:
        """What it shares with the same part of another tensor: its role, size, and how far apart entries are."""
        return self.role, self.size, self.stride / (self.whole or self.size * self.stride)


class Axis(NamedTuple):
    """The factors of an axis, with the entries that stand `before` and `after` them (class and register tokens).

    Negative numbers are entries that were cut off. Where such an axis was joined with another (the tokens of all images
    in a row) it is a factor as a whole.
    """

    factors: tuple[Factor | Axis, ...]
    before: int = 0
    after: int = 0

    @property
    def size(self) -> int:
        """How many entries the axis has."""
        return math.prod(factor.size for factor in self.factors) + self.before + self.after

    @property
    def roles(self) -> str:
        """The roles of the factors, in order; t for tokens that were joined with another axis."""
        return "".join(factor.role if isinstance(factor, Factor) else "t" for factor in self.factors)

    @property
    def cut(self) -> tuple[float, float]:
        """The shares of the image's side that were cut off in front and behind, of one side alone."""
        first = self.factors[0] if len(self.factors) == 1 else None
        return first.cut if isinstance(first, Factor) else (0.0, 0.0)

    def and_cut(self, front: float, back: float) -> tuple[float, float]:
        """The same with so many more of its own entries cut off."""
        own = (1 - sum(self.cut)) / max(1, math.prod(factor.size for factor in self.factors))
        return self.cut[0] + own * front, self.cut[1] + own * back

    @property
    def is_whole(self) -> bool:
        """Whether nothing stands before or behind the factors."""
        return not (self.before or self.after)


Axes = tuple[Axis, ...]


class Foreign:
    """The mark of a tensor that the weights alone determine, such as learned queries, and of what is added to it."""


class Lost:
    """The mark of a tensor that depends on the images, but has no cells of them in their places."""


FOREIGN, LOST = Foreign(), Lost()
Known = Axes | Foreign | Lost | None
"""The axes of a tensor; None where they are unknown."""


def grid(roles: str, shape: Sequence[int]) -> Axes:
    """The axes of a tensor with these roles, a letter each, and sizes.

    >>> [axis.roles for axis in grid("nchw", (1, 3, 32, 48))]
    ['n', 'c', 'h', 'w']
    """
    return tuple(Axis((Factor(role, size, 1, size),)) for role, size in zip(roles, shape, strict=True))


def sizes(axes: Axes) -> tuple[int, ...]:
    return tuple(axis.size for axis in axes)


def channels(size: int) -> Axis:
    return Axis((Factor("c", size),))


def has_cells(axis: Axis) -> bool:
    """Whether places on the axis are places in the image."""
    return not {*SIDES, "t"}.isdisjoint(axis.roles)


def is_in_grid(axis: Axis) -> bool:
    """Whether an axis is a side of the grid, or several."""
    return bool(axis.roles) and set(axis.roles) <= set(SIDES)


_TINY = 1 / 24
"""No cell of a map may move by more than half a cell, or by one where that is no larger share of the image: networks
trim rows by one."""


def is_cut_off(axes: Axes) -> bool:
    """Whether so much of the image was cut off that cells, enlarged to all of it, are not in their places."""
    if any(min(axis.before, axis.after) < 0 for axis in axes):
        return True
    inside = [f for axis in axes if is_in_grid(axis) for f in axis.factors if isinstance(f, Factor)]
    for role in SIDES:
        sides = [factor for factor in inside if factor.role == role]
        share = max((max(factor.cut) for factor in sides), default=0.0)
        cells = share * math.prod(factor.size for factor in sides)
        if cells > (1.0 if share <= _TINY else 0.5) + 1e-9:
            return True
    return False


def regroup(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes after a view as `shape`: factors are split and joined in order; None where that is no such view.

    >>> rows, columns = Axis((Factor("h", 32),)), Axis((Factor("w", 48),))
    >>> patches = regroup((rows, columns), (2, 16, 3, 16))
    >>> [axis.factors[0][:4] for axis in patches][:2]
    [('h', 2, 16, 32), ('h', 16, 1, 32)]
    >>> [factor[:4] for factor in regroup(patches, (32, 48))[0].factors]
    [('h', 32, 1, 32)]
    """
    waiting: list[Factor | Axis] = []
    for axis in axes:
        # Factors of size 1 say nothing about where an entry lies, and would stand in the way of a join.
        waiting.extend([factor for factor in axis.factors if factor.size > 1] if axis.is_whole else [axis])
    waiting.reverse()
    found = []
    for size in shape:
        taken = _taken(waiting, size)
        if taken is None:
            return None
        found.append(taken)
    return None if waiting else tuple(found)


def _taken(waiting: list[Factor | Axis], size: int) -> Axis | None:
    """An axis of `size` made of the next factors, the last of which may be split."""
    factors: list[Factor | Axis] = []
    rest = size
    while rest > 1:
        if not waiting:
            return None
        item = waiting.pop()
        if rest % item.size:
            # The factor is larger than what is still needed: its fast part goes into this axis, its slow part into the
            # next.
            if item.size % rest or isinstance(item, Axis):  # with entries beside its factors it cannot be split
                return None
            role, num, stride, whole, cut = item
            whole = whole or num * stride
            item = Factor(role, rest, stride * (num // rest), whole, cut)
            waiting.append(Factor(role, num // rest, stride, whole, cut))
        factors.append(item)
        rest //= item.size
    alone = factors[0] if len(factors) == 1 else None
    return alone if isinstance(alone, Axis) else Axis(tuple(_merged(factors)))


def _merged(factors: Sequence[Factor | Axis]) -> list[Factor | Axis]:
    """Neighbours that are parts of one axis as one factor."""
    merged: list[Factor | Axis] = []
    for factor in factors:
        last = merged[-1] if merged else None
        if isinstance(last, Factor) and isinstance(factor, Factor) and _continues(last, factor):
            merged[-1] = Factor(factor.role, last.size * factor.size, factor.stride, last.whole, last.cut)
        elif isinstance(last, Factor) and isinstance(factor, Factor) and last.is_grid and factor.role == "r":
            merged[-1] = Factor(last.role, last.size * factor.size, cut=last.cut)
        else:
            merged.append(factor)
    return merged


def _continues(slow: Factor, fast: Factor) -> bool:
    # Channels have no order that anybody asks for; rows are neighbours only if the slow part steps over the fast one.
    return slow.role == fast.role and (fast.role == "c" or slow.stride == fast.size * fast.stride)
