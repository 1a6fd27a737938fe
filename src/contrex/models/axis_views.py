"""What views do to axes: permutations, slices, pads, splits, and what moves cells out of their places."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from contrex.models.axes import SIDES, Axes, Axis, Factor, Known, channels, has_cells, regroup, sizes
from contrex.models.axis_step import Step, listed, with_axis

_LITTLE = 16
"""Of so many rows one may be cut off with the rest taken for a whole; what cells move by is counted (`is_cut_off`)."""


def permuted(step: Step, before: Axes) -> Axes:
    return tuple(before[axis] for axis in step.saved("dims"))


def transposed(step: Step, before: Axes) -> Axes:
    order = list(range(len(before)))
    one, other = (step.saved(name) for name in ("dim0", "dim1"))
    order[one], order[other] = order[other], order[one]
    return tuple(before[axis] for axis in order)


def turned(step: Step, before: Axes) -> Axes:
    """The axes of `x.t()`: in the opposite order."""
    return before[::-1]


def viewed(step: Step, before: Axes) -> Axes | None:
    return regroup(before, step.shape)


def with_new_axis(step: Step, before: Axes) -> Axes:
    place = step.saved("dim") % len(step.shape)
    return (*before[:place], Axis(()), *before[place:])


def expanded(step: Step, before: Axes) -> Axes:
    """The axes of what is expanded: copies along axes of size 1 and along new ones."""
    axes = (Axis(()),) * (len(step.shape) - len(before)) + before
    return tuple(
        axis if axis.size == size else Axis((Factor("r", size),)) for axis, size in zip(axes, step.shape, strict=True)
    )


def reduced(step: Step, before: Axes) -> Axes:
    """The axes that stay when others are averaged, added up or searched for their maximum."""
    return _removed(before, listed(step.saved("dim")), step.shape)


def _removed(before: Axes, places: Sequence[int], shape: tuple[int, ...]) -> Axes:
    gone = {place % len(before) for place in places}
    if len(shape) == len(before):  # keepdim
        return tuple(Axis(()) if index in gone else axis for index, axis in enumerate(before))
    return tuple(axis for index, axis in enumerate(before) if index not in gone)


def sliced(step: Step, before: Axes) -> Axes | None:
    """The axes of a slice: every so many rows of a whole grid, a stretch of rows or tokens, or some channels."""
    place = step.saved("dim")
    axis, start = before[place], step.saved("start")
    start = max(0, start + axis.size) if start < 0 else start
    return with_axis(before, place, _stretch(axis, start, step.shape[place], step.saved("step")))


def _stretch(axis: Axis, start: int, num: int, stride: int = 1) -> Axis | None:
    if num == axis.size:
        return axis
    if not has_cells(axis):
        return channels(num)
    if stride > 1:
        is_all = len(axis.factors) == 1 and axis.is_whole and num == -(-(axis.size - start) // stride)
        return Axis((Factor(axis.roles, num, cut=axis.cut),)) if is_all and start < stride else None
    return _with_ends(axis, -start, num - axis.size + start)


def _with_ends(axis: Axis, front: int, back: int) -> Axis:
    """An axis with entries added to its ends, or cut off by negative numbers; a few of many rows are no matter."""
    before, after = axis.before + front, axis.after + back
    whole = axis.size - axis.before - axis.after
    if whole + min(before, 0) + min(after, 0) <= 0:  # no cell is left, only tokens that stood beside the grid
        return channels(axis.size + front + back)
    is_little = min(before, after) < 0 and max(before, after) <= 0 and -_LITTLE * min(before, after) <= whole
    if is_little and len(axis.factors) == 1 and isinstance(axis.factors[0], Factor):
        return Axis((Factor(axis.roles, axis.size + front + back, cut=axis.and_cut(-before, -after)),))
    return Axis(axis.factors, before, after)


def padded(step: Step, before: Axes) -> Axes:
    """The axes after padding: entries before and behind the grid, or more channels; fewer for negative amounts."""
    amounts = step.saved("pad" if hasattr(step.node, "_saved_pad") else "padding")
    axes = list(before)
    for place, (front, back) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=1):
        axis = axes[-place]
        axes[-place] = _with_ends(axis, front, back) if has_cells(axis) else channels(axis.size + front + back)
    return tuple(axes)


def split(step: Step, before: Axes) -> Axes | None:
    place = step.saved("dim")
    parts = listed(step.saved("split_sizes" if hasattr(step.node, "_saved_split_sizes") else "split_size"))
    start = sum(parts[: step.place]) if len(parts) > 1 else parts[0] * step.place
    return with_axis(before, place, _stretch(before[place], start, step.shape[place]))


def unbound(step: Step, before: Axes) -> Axes:
    """The axes of the entries of an axis: all but that one."""
    return _removed(before, [step.saved("dim")], step.shape)


def windowed(step: Step, before: Axes) -> Axes | None:
    """The axes of `x.unfold(axis, size, step)`: windows of the axis, and last what is inside of one."""
    place, num = step.saved("dimension"), step.shape[step.saved("dimension")]
    axis = before[place]
    is_side = len(axis.factors) == 1 and axis.is_whole and axis.roles in SIDES
    return (
        *before[:place],
        Axis((Factor(axis.roles, num, cut=axis.cut),)),
        *before[place + 1 :],
        channels(step.shape[-1]),
    ) * is_side


def moved(step: Step, before: Axes) -> Axes | None:
    """The axes where entries were moved, chosen or added up along some: of a grid nothing stays in its place."""
    if hasattr(step.node, "_saved_indices") and not hasattr(step.node, "_saved_dim"):
        places = [place for place, index in enumerate(step.node._saved_indices) if index is not None]
    else:
        places = list(listed(step.saved("dim" if hasattr(step.node, "_saved_dim") else "dims")))
    if len(step.shape) != len(before) or not places or any(has_cells(before[place]) for place in places):
        return None
    gone = {place % len(before) for place in places}
    return tuple(channels(step.shape[i]) if i in gone else axis for i, axis in enumerate(before))


def lost(step: Step, before: Axes) -> None:
    """Say that nothing is left in its place."""


def strided(step: Step) -> Known:
    """The axes of a view made anew after a change in place: of the same memory in the same order, or unknown."""
    before, shape, strides = step.inputs[0], tuple(step.saved("size")), tuple(step.saved("stride"))
    if not isinstance(before, tuple):
        return before
    like = torch.empty(shape, device="meta")
    if strides == like.stride():
        # Plain strides of four axes whose sizes repeat fit [N,C,h,w] and [N,h,w,C] alike, so nothing is concluded.
        is_ambiguous = len(shape) == 4 and shape[1] in shape[2:]  # channels-last memory, seen as channels-last
        return None if is_ambiguous and sizes(before) != shape else regroup(before, shape)
    is_channels_last = len(shape) == 4 and strides == like.to(memory_format=torch.channels_last).stride()
    return before if is_channels_last and sizes(before) == shape else None
