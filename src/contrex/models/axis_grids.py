"""What convolutions, poolings, upsamplings and norms do to axes: they give a new grid, and new channels."""

from __future__ import annotations

import math

from contrex.models.axes import LOST, ROLES, Axes, Axis, Factor, Known, channels, grid
from contrex.models.axis_step import Step


def grid_of(step: Step) -> Known:
    """The axes [N,C,h,w] behind a convolution, a pooling or an upsampling: roles stay, the grid is a new one. Those of
    signals are [N,C,l], of volumes [N,C,d,h,w].

    Of an unknown input these functions say themselves which axis is which; that is presumed.
    """
    before = step.inputs[0]
    if not isinstance(before, tuple):
        return grid(ROLES[step.rank + 2], step.shape) if before is None and len(step.shape) == step.rank + 2 else before
    if step.rank != 2 and len(before) == step.rank + 2:
        return _grid_of_rank(step, before)
    if len(before) != 4:
        return pointwise(step, before) or LOST
    roles = sides_of(before[2], before[3])
    if roles is None:
        return LOST
    sides = [_regridded(step, side, before[2 + side], role) for side, role in enumerate(roles)]
    return LOST if None in sides else (before[0], channels(step.shape[1]), *[axis for axis in sides if axis])


def _grid_of_rank(step: Step, before: Axes) -> Known:
    """The axes [N,C,l] of signals or [N,C,d,h,w] of volumes behind such a function."""
    roles = ROLES[len(before)][2:]
    if not all(_is_side(axis, role) for axis, role in zip(before[2:], roles, strict=True)):
        return pointwise(step, before) or LOST
    sides = [_regridded(step, side, before[2 + side], role) for side, role in enumerate(roles)]
    return LOST if None in sides else (before[0], channels(step.shape[1]), *[axis for axis in sides if axis])


def sides_of(rows: Axis, columns: Axis) -> str | None:
    """Which of two axes are rows and which columns, if they are one each and go from end to end of the image.

    One of a single row, whose role a view has dropped, is what the other is not.
    """
    for roles in ("hw", "wh"):
        pairs = list(zip(roles, (rows, columns), strict=True))
        if rows.roles + columns.roles and all(_is_side(axis, role) for role, axis in pairs):
            return roles
    return None


def _is_side(axis: Axis, role: str) -> bool:
    factors = axis.factors
    return not factors or (axis.roles == role and isinstance(factors[0], Factor) and factors[0].is_coarsest)


def _regridded(step: Step, side: int, axis: Axis, role: str) -> Axis | None:
    """The new rows (or columns), with what was cut off, or was added and is more than the kernel takes."""
    num = step.shape[2 + side]
    # A single row that becomes several (global pooling, enlarged again) tells nothing about places.
    grown_from_one = num > 1 and math.prod(factor.size for factor in axis.factors) == 1
    taken = _taken_by_kernel(step, side) if max(axis.before, axis.after) > 0 else 0
    ends = [num / axis.size * (end if end < 0 else max(0, end - taken)) for end in (axis.before, axis.after)]
    before, after = map(round, ends)
    size = num - before - after
    if grown_from_one or size < 1:
        return None
    # What of a cell is lost to rounding where some were cut off stays cut off.
    new = Axis((Factor(role, size, cut=axis.cut),))
    lost = [round(end) - end if end < 0 else 0.0 for end in ends]
    return Axis((Factor(role, size, cut=new.and_cut(*lost)),), before, after)


def _taken_by_kernel(step: Step, side: int) -> int:
    """How many rows (or columns) lie before the middle of the first place of a kernel."""
    padding = getattr(step.node, "_saved_padding", (0,) * step.rank)[side]
    return max(0, (_reach(step, side) + 1) // 2 - padding)


def _reach(step: Step, side: int) -> int:
    """How many rows (or columns) a kernel sees beside its first one."""
    weight = getattr(step.node, "_saved_weight", None)
    kernel = getattr(step.node, "_saved_kernel_size", (1,) * step.rank) if weight is None else weight.shape[2:]
    return (kernel[side] - 1) * getattr(step.node, "_saved_dilation", (1,) * step.rank)[side]


def pointwise(step: Step, before: Axes) -> Axes | None:
    """The axes [N,C,T] behind a convolution that leaves each of the tokens alone; None behind another."""
    is_pointwise = len(before) == 3 and not _reach(step, 0)
    return (before[0], channels(step.shape[1]), before[2]) if is_pointwise else None


def normalised(step: Step) -> Known:
    """The axes behind batch and group norm: those of the input; on four unknown axes the norm itself says that the
    second is the channels."""
    return step.inputs[0] or grid_of(step)


def unfolded(step: Step, before: Axes) -> Axes | None:
    """The axes [N,C k k,h w] of the patches of `F.unfold`."""
    if len(before) != 4 or sides_of(before[2], before[3]) != "hw":
        return None
    options = [step.saved(name) for name in ("kernel_size", "dilation", "padding", "stride")]
    sides = [
        (axis.size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for axis, kernel, dilation, padding, stride in zip(before[2:], *options, strict=True)
    ]
    cuts = [axis.cut for axis in before[2:]]
    tokens = Axis(tuple(Factor(role, size, cut=cut) for role, size, cut in zip("hw", sides, cuts, strict=True)))
    return before[0], channels(step.shape[1]), tokens
