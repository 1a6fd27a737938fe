"""What functions of several tensors do to axes: sums, concatenations, products, and changes in place.

A sum takes the axes of the addend that is known (the residual stream).
"""

from __future__ import annotations

from contrex.models.axes import FOREIGN, LOST, Axes, Axis, Known, channels, has_cells, sizes
from contrex.models.axis_step import Step, agreed, alike, lost_or_not, shape_at, with_axis


def elementwise(step: Step) -> Known:
    """The axes behind a function of each element: those of the inputs of its shape, if all that are known agree."""
    full = [axes for axes in step.known if sizes(axes) == step.shape]
    if full:
        return agreed(full) or LOST
    if _has_foreign_addend(step):
        return FOREIGN
    return lost_or_not(step)


def _has_foreign_addend(step: Step) -> bool:
    """Whether one of the inputs is made of weights alone, or on top of them, and as large as the output."""
    pairs = zip(step.node.next_functions, step.inputs, strict=True)
    return any(known is FOREIGN and shape_at(edge) == step.shape for edge, known in pairs)


def joined(step: Step) -> Known:
    """The axes of a concatenation: channels of all inputs, or one grid with tokens before or behind it."""
    place = step.saved("dim") % len(step.shape)
    known = [(index, axes) for index, axes in enumerate(step.inputs) if isinstance(axes, tuple)]
    # Along an axis of cells only tokens without a place may be joined to one grid; two grids in a row are none.
    with_cells = [(index, axes) for index, axes in known if has_cells(axes[place])]
    if len(with_cells) == 1 and LOST not in step.inputs:
        return _among_tokens(step, place, *with_cells[0])
    if with_cells or not known:
        return LOST if with_cells else lost_or_not(step)
    others = agreed((*axes[:place], channels(1), *axes[place + 1 :]) for _, axes in known)
    return with_axis(others, place, channels(step.shape[place])) if others else LOST


def stacked(step: Step) -> Known:
    """The axes of what is stacked: all inputs along a new axis of channels."""
    place = step.saved("dim") % len(step.shape)
    one = agreed(step.known)
    return (*one[:place], channels(step.shape[place]), *one[place:]) if one else lost_or_not(step)


def _among_tokens(step: Step, place: int, index: int, axes: Axes) -> Axes | None:
    shapes = [shape_at(edge) for edge in step.node.next_functions]
    ahead, behind = (
        None if None in part else sum(shape[place] for shape in part if shape is not None)
        for part in (shapes[:index], shapes[index + 1 :])
    )
    axis, extra = axes[place], step.shape[place] - axes[place].size
    num = ahead if ahead is not None or behind is None else extra - behind  # constants have no shape in the graph
    return (
        None if num is None else with_axis(axes, place, Axis(axis.factors, axis.before + num, axis.after + extra - num))
    )


def written(step: Step) -> Known:
    """The axes of a tensor changed in place through a view: as before, where all that is written has its cells."""
    if LOST in step.inputs or None in step.inputs:
        return None
    same = [axes for axes in step.known if len(axes) == len(step.shape)]
    widened = [
        tuple(axis if has_cells(axis) else channels(size) for axis, size in zip(axes, step.shape, strict=True))
        for axes in same
    ]
    fits = all(alike(axes) == alike(widened[0]) for axes in widened) and len(same) == len(step.known)
    return widened[0] if widened and fits else None


def product(step: Step) -> Known:
    """The axes of `a @ b`, also batched or with a bias: rows of a, columns of b; those of weights are new channels."""
    # From the end, as a bias comes before the two factors.
    one, other = step.inputs[-2], step.inputs[-1]
    new = [channels(size) for size in step.shape]
    if isinstance(one, tuple):
        last = other[-1] if isinstance(other, tuple) else new[-1]
        return None if other is None else (*one[:-1], last)
    if one is FOREIGN and isinstance(other, tuple):
        return *other[:-2], new[-2], other[-1]
    return one if one is not FOREIGN else other


def attended(step: Step, queries: Axes) -> Axes:
    """What attention gives for each query [N,heads,T,d]."""
    return *queries[:-1], channels(step.shape[-1])
