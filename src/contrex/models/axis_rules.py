"""What torch's functions do to axes: from the axes of the inputs to those of the output, by the name of the node.

Functions that move cells (a flip, a gather) or mix all of them (a linear layer over the grid) lose them; a sum takes
the axes of the addend that is known (the residual stream).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contrex.models.axes import FOREIGN, LOST, Axes, Axis, Factor, Known, channels, grid, has_cells, regroup, sizes
from contrex.models.graph import Edge

_LITTLE = 16
"""Of so many rows one may be cut off: no cell of a map moves by more than that share of the image."""


@dataclass(frozen=True)
class Step:
    """One function of the pass: its node, the axes of its inputs in order, and the `shape` of one of its outputs, which
    has the `place` among them."""

    node: Any
    place: int
    inputs: Sequence[Known]
    shape: tuple[int, ...]

    def saved(self, name: str) -> Any:
        """An argument of the function, which the node keeps for the backward pass; negative axes are counted up."""
        return _signed(getattr(self.node, f"_saved_{name}"))

    @property
    def known(self) -> Sequence[Axes]:
        """The axes of those inputs whose axes are known."""
        return [axes for axes in self.inputs if isinstance(axes, tuple)]


def _signed(value: Any) -> Any:
    """Numbers that torch shows without their sign."""
    if isinstance(value, (tuple, list)):
        return [_signed(one) for one in value]
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value


Rule = Callable[[Step], Known]
FirstRule = Callable[[Step, Axes], Axes | None]


def shapes_of(node: Any) -> list[tuple[int, ...]]:
    """The shapes of a node's outputs; one without axes where this torch does not tell."""
    return [tuple(output.shape) for output in getattr(node, "_input_metadata", ())] or [()]


def _of_first(rule: FirstRule) -> Rule:
    """A rule for functions of one tensor; what it cannot follow is lost, and what was lost or foreign stays so."""

    def follow(step: Step) -> Known:
        first = step.inputs[0]
        return rule(step, first) or LOST if isinstance(first, tuple) else first

    return follow


def left_in_place(step: Step) -> Known:
    """Without a rule: the axes of the inputs that have the output's shape."""
    return _agreed(axes for axes in step.known if sizes(axes) == step.shape)


def _elementwise(step: Step) -> Known:
    """Those of the inputs that have the output's shape, where all that are known agree."""
    full = [axes for axes in step.known if sizes(axes) == step.shape]
    if full:
        return _agreed(full) or LOST
    if _has_foreign_addend(step):
        return FOREIGN
    return _lost_or_not(step)


def _agreed(candidates: Iterable[Axes]) -> Axes | None:
    """The one that all are, but for those that were cut out of a larger one."""
    found = list(candidates)
    uncut = [axes for axes in found if all(min(axis.before, axis.after) >= 0 for axis in axes)] or found
    is_one = bool(uncut) and all(_alike(axes) == _alike(uncut[0]) for axes in uncut)
    return uncut[0] if is_one else None


def _alike(axes: Axes) -> list[tuple[object, ...]]:
    """What two tensors must share to be added: a factor of size 1 may be missing, strides may be in other units."""
    return [(axis.before, axis.after, *(f.like for f in _split_up(axis) if f.size > 1)) for axis in axes]


def _split_up(axis: Axis) -> Sequence[Factor]:
    return [f if isinstance(f, Factor) else Factor("t", f.size) for f in axis.factors]


def _has_foreign_addend(step: Step) -> bool:
    """Whether one of the inputs is made of weights alone, or on top of them, and as large as the output."""
    pairs = zip(step.node.next_functions, step.inputs, strict=True)
    return any(known is FOREIGN and _shape_at(edge) == step.shape for edge, known in pairs)


def _shape_at(edge: Edge) -> tuple[int, ...] | None:
    """The shape of a tensor; None where it is a constant, which no graph knows."""
    return None if edge[0] is None else shapes_of(edge[0])[edge[1]]


def _grid(step: Step) -> Known:
    """[N,C,h,w] of a convolution, a pooling or an upsampling: the axes keep their roles, the grid is a new one.

    Of an unknown input these functions say themselves which axis is which; that is presumed.
    """
    before = step.inputs[0]
    if not isinstance(before, tuple):
        return grid("nchw", step.shape) if before is None and len(step.shape) == 4 else before
    if len(before) != 4:
        return _pointwise(step, before) or LOST
    roles = _sides(before[2], before[3])
    if roles is None:
        return LOST
    sides = [_regridded(step, side, before[2 + side], role) for side, role in enumerate(roles)]
    return LOST if None in sides else (before[0], channels(step.shape[1]), *[axis for axis in sides if axis])


def _sides(rows: Axis, columns: Axis) -> str | None:
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
    grown_from_one = num > 1 and math.prod(factor.size for factor in axis.factors) == 1
    taken = _taken_by_kernel(step, side) if max(axis.before, axis.after) > 0 else 0
    before, after = (
        round(num / axis.size * (end if end < 0 else max(0, end - taken))) for end in (axis.before, axis.after)
    )
    size = num - before - after
    return None if grown_from_one or size < 1 else Axis((Factor(role, size),), before, after)


def _taken_by_kernel(step: Step, side: int) -> int:
    """How many rows (or columns) lie before the middle of the first place of a kernel."""
    padding = getattr(step.node, "_saved_padding", (0, 0))[side]
    return max(0, (_reach(step, side) + 1) // 2 - padding)


def _reach(step: Step, side: int) -> int:
    """How many rows (or columns) a kernel sees beside its first one."""
    weight = getattr(step.node, "_saved_weight", None)
    kernel = getattr(step.node, "_saved_kernel_size", (1, 1)) if weight is None else weight.shape[2:]
    return (kernel[side] - 1) * getattr(step.node, "_saved_dilation", (1, 1))[side]


def _pointwise(step: Step, before: Axes) -> Axes | None:
    """A convolution [N,C,T] that leaves each of the tokens alone."""
    is_pointwise = len(before) == 3 and not _reach(step, 0)
    return (before[0], channels(step.shape[1]), before[2]) if is_pointwise else None


def _normalised(step: Step) -> Known:
    """Batch and group norm: as the input; on four unknown axes they say themselves that channels are the second."""
    return step.inputs[0] or _grid(step)


def _permuted(step: Step, before: Axes) -> Axes:
    return tuple(before[axis] for axis in step.saved("dims"))


def _transposed(step: Step, before: Axes) -> Axes:
    order = list(range(len(before)))
    one, other = (step.saved(name) for name in ("dim0", "dim1"))
    order[one], order[other] = order[other], order[one]
    return tuple(before[axis] for axis in order)


def _turned(step: Step, before: Axes) -> Axes:
    """`x.t()`."""
    return before[::-1]


def _viewed(step: Step, before: Axes) -> Axes | None:
    return regroup(before, step.shape)


def _with_new_axis(step: Step, before: Axes) -> Axes:
    place = step.saved("dim") % len(step.shape)
    return (*before[:place], Axis(()), *before[place:])


def _expanded(step: Step, before: Axes) -> Axes:
    """Copies along axes of size 1 and new ones."""
    axes = (Axis(()),) * (len(step.shape) - len(before)) + before
    return tuple(
        axis if axis.size == size else Axis((Factor("r", size),)) for axis, size in zip(axes, step.shape, strict=True)
    )


def _reduced(step: Step, before: Axes) -> Axes:
    """The mean, sum or maximum over some axes: the others stay."""
    return _removed(before, _listed(step.saved("dim")), step.shape)


def _listed(value: Any) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def _removed(before: Axes, places: Sequence[int], shape: tuple[int, ...]) -> Axes:
    gone = {place % len(before) for place in places}
    if len(shape) == len(before):  # keepdim
        return tuple(Axis(()) if index in gone else axis for index, axis in enumerate(before))
    return tuple(axis for index, axis in enumerate(before) if index not in gone)


def _sliced(step: Step, before: Axes) -> Axes | None:
    """Every so many rows of a whole grid, a stretch of rows or tokens, or part of the channels."""
    place = step.saved("dim")
    axis, start = before[place], step.saved("start")
    start = max(0, start + axis.size) if start < 0 else start
    return _with_axis(before, place, _stretch(axis, start, step.shape[place], step.saved("step")))


def _stretch(axis: Axis, start: int, num: int, stride: int = 1) -> Axis | None:
    if num == axis.size:
        return axis
    if not has_cells(axis):
        return channels(num)
    if stride > 1:
        is_all = len(axis.factors) == 1 and axis.is_whole and num == -(-(axis.size - start) // stride)
        return Axis((Factor(axis.roles, num),)) if is_all and start < stride else None
    return _with_ends(axis, -start, num - axis.size + start)


def _with_ends(axis: Axis, front: int, back: int) -> Axis:
    """With entries added to its ends, or cut off where the numbers are negative; a few of many rows are no matter."""
    before, after = axis.before + front, axis.after + back
    whole = axis.size - axis.before - axis.after
    is_little = min(before, after) < 0 and max(before, after) <= 0 and -_LITTLE * min(before, after) <= whole
    if is_little and len(axis.factors) == 1 and isinstance(axis.factors[0], Factor):
        return Axis((Factor(axis.roles, axis.size + front + back),))
    return Axis(axis.factors, before, after)


def _padded(step: Step, before: Axes) -> Axes:
    """Entries before and behind the grid, or more channels; fewer where the amounts are negative."""
    amounts = step.saved("pad" if hasattr(step.node, "_saved_pad") else "padding")
    axes = list(before)
    for place, (front, back) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=1):
        axis = axes[-place]
        axes[-place] = _with_ends(axis, front, back) if has_cells(axis) else channels(axis.size + front + back)
    return tuple(axes)


def _split(step: Step, before: Axes) -> Axes | None:
    place = step.saved("dim")
    parts = _listed(step.saved("split_sizes" if hasattr(step.node, "_saved_split_sizes") else "split_size"))
    start = sum(parts[: step.place]) if len(parts) > 1 else parts[0] * step.place
    return _with_axis(before, place, _stretch(before[place], start, step.shape[place]))


def _unbound(step: Step, before: Axes) -> Axes:
    """Entries of an axis."""
    return _removed(before, [step.saved("dim")], step.shape)


def _windowed(step: Step, before: Axes) -> Axes | None:
    """`x.unfold(axis, size, step)`: windows of the axis, what is inside one becomes the last axis."""
    place, num = step.saved("dimension"), step.shape[step.saved("dimension")]
    axis = before[place]
    is_side = len(axis.factors) == 1 and axis.is_whole and axis.roles in ("h", "w")
    return (
        *before[:place],
        Axis((Factor(axis.roles, num),)),
        *before[place + 1 :],
        channels(step.shape[-1]),
    ) * is_side


def _moved(step: Step, before: Axes) -> Axes | None:
    """Functions that move, choose or add up entries along some axes: of a grid they leave nothing in its place."""
    if hasattr(step.node, "_saved_indices") and not hasattr(step.node, "_saved_dim"):
        places = [place for place, index in enumerate(step.node._saved_indices) if index is not None]
    else:
        places = list(_listed(step.saved("dim" if hasattr(step.node, "_saved_dim") else "dims")))
    if len(step.shape) != len(before) or not places or any(has_cells(before[place]) for place in places):
        return None
    gone = {place % len(before) for place in places}
    return tuple(channels(step.shape[i]) if i in gone else axis for i, axis in enumerate(before))


def _lost(step: Step, before: Axes) -> None:
    """Nothing is left in its place."""


def _joined(step: Step) -> Known:
    """Channels of all inputs, or one input with a grid and tokens before or behind it."""
    place = step.saved("dim") % len(step.shape)
    known = [(index, axes) for index, axes in enumerate(step.inputs) if isinstance(axes, tuple)]
    with_cells = [(index, axes) for index, axes in known if has_cells(axes[place])]
    if len(with_cells) == 1 and LOST not in step.inputs:
        return _among_tokens(step, place, *with_cells[0])
    if with_cells or not known:
        return LOST if with_cells else _lost_or_not(step)
    others = _agreed((*axes[:place], channels(1), *axes[place + 1 :]) for _, axes in known)
    return _with_axis(others, place, channels(step.shape[place])) if others else LOST


def _written(step: Step) -> Known:
    """A tensor that was changed in place through a view of it: as before, where all that is written has its cells."""
    if LOST in step.inputs or None in step.inputs:
        return None
    same = [axes for axes in step.known if len(axes) == len(step.shape)]
    widened = [
        tuple(axis if has_cells(axis) else channels(size) for axis, size in zip(axes, step.shape, strict=True))
        for axes in same
    ]
    fits = all(_alike(axes) == _alike(widened[0]) for axes in widened) and len(same) == len(step.known)
    return widened[0] if widened and fits else None


def _strided(step: Step) -> Known:
    """A view that was made anew after a change in place: of the same memory in the same order, or unknown."""
    before, shape, strides = step.inputs[0], tuple(step.saved("size")), tuple(step.saved("stride"))
    if not isinstance(before, tuple):
        return before
    like = torch.empty(shape, device="meta")
    if strides == like.stride():
        is_ambiguous = len(shape) == 4 and shape[1] in shape[2:]  # channels-last memory, seen as channels-last
        return None if is_ambiguous and sizes(before) != shape else regroup(before, shape)
    is_channels_last = len(shape) == 4 and strides == like.to(memory_format=torch.channels_last).stride()
    return before if is_channels_last and sizes(before) == shape else None


def _stacked(step: Step) -> Known:
    """All inputs along a new axis of channels."""
    place = step.saved("dim") % len(step.shape)
    agreed = _agreed(step.known)
    return (*agreed[:place], channels(step.shape[place]), *agreed[place:]) if agreed else _lost_or_not(step)


def _lost_or_not(step: Step) -> Known:
    """Unknown where an input is; otherwise lost."""
    return None if None in step.inputs else LOST


def _among_tokens(step: Step, place: int, index: int, axes: Axes) -> Axes | None:
    shapes = [_shape_at(edge) for edge in step.node.next_functions]
    ahead, behind = (
        None if None in part else sum(shape[place] for shape in part if shape is not None)
        for part in (shapes[:index], shapes[index + 1 :])
    )
    axis, extra = axes[place], step.shape[place] - axes[place].size
    num = ahead if ahead is not None or behind is None else extra - behind  # constants have no shape in the graph
    return (
        None
        if num is None
        else _with_axis(axes, place, Axis(axis.factors, axis.before + num, axis.after + extra - num))
    )


def _with_axis(axes: Axes, place: int, axis: Axis | None) -> Axes | None:
    place %= len(axes)
    return None if axis is None else (*axes[:place], axis, *axes[place + 1 :])


def _product(step: Step) -> Known:
    """`a @ b`, also batched or with a bias: the rows of a and the columns of b; those of weights are new channels."""
    one, other = step.inputs[-2], step.inputs[-1]
    new = [channels(size) for size in step.shape]
    if isinstance(one, tuple):
        last = other[-1] if isinstance(other, tuple) else new[-1]
        return None if other is None else (*one[:-1], last)
    if one is FOREIGN and isinstance(other, tuple):
        return *other[:-2], new[-2], other[-1]
    return one if one is not FOREIGN else other


def _attended(step: Step, queries: Axes) -> Axes:
    """What attention gives for each query [N,heads,T,d]."""
    return *queries[:-1], channels(step.shape[-1])


def _unfolded(step: Step, before: Axes) -> Axes | None:
    """Patches [N,C k k,h w] of `F.unfold`."""
    if len(before) != 4 or _sides(before[2], before[3]) != "hw":
        return None
    options = [step.saved(name) for name in ("kernel_size", "dilation", "padding", "stride")]
    sides = [
        (axis.size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for axis, kernel, dilation, padding, stride in zip(before[2:], *options, strict=True)
    ]
    tokens = Axis(tuple(Factor(role, size) for role, size in zip("hw", sides, strict=True)))
    return before[0], channels(step.shape[1]), tokens


_ELEMENTWISE = (
    "Abs Add Addcdiv Addcmul Alias Celu Clamp ClampMax ClampMin Clone Copy CopyBackwards Div Elu Erf Exp "
    "Expm1 FusedDropout Gelu Hardsigmoid Hardswish Hardtanh LeakyRelu Lerp Log Log1P LogSoftmax LogSigmoid Maximum "
    "Minimum Mish Mul NativeDropout Neg Pow PreluKernel Reciprocal Relu Rsqrt Rsub Selu Sigmoid Silu Softmax Softplus "
    "Softshrink Softsign Sqrt Sub Tanh Threshold ToCopy Where NativeLayerNorm FusedRmsNorm RreluWithNoise MaskedFill "
    "Hardshrink"
)
_ATTENTION = "FlashAttentionForCpu FlashAttention EfficientAttention CudnnAttention FusedAttentionOverrideable"
_GRIDS = (
    "Convolution ConvolutionOverrideable MkldnnConvolution MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D "
    "MkldnnAdaptiveAvgPool2D AdaptiveMaxPool2D UpsampleNearest2D UpsampleBilinear2D UpsampleBicubic2D "
    "UpsampleNearestExact2D UpsampleBilinear2DAa PixelShuffle PixelUnshuffle"
)
_OF_FIRST: Mapping[str, FirstRule] = {
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Reshape", "Squeeze"), _viewed),
    **dict.fromkeys(("Select", "Amax", "Amin", "Max", "Min", "Mean", "Sum"), _reduced),
    **dict.fromkeys(("Split", "SplitWithSizes", "Chunk"), _split),
    **dict.fromkeys(("ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D"), _padded),
    **dict.fromkeys(("Flip", "Roll", "Index", "IndexSelect", "Gather", "Sort", "Topk", "Cumsum", "Cumprod"), _moved),
    **dict.fromkeys(("GridSampler2D", "Rot90", "Diagonal"), _lost),
    **dict.fromkeys((f"ScaledDotProduct{kind}" for kind in _ATTENTION.split()), _attended),
    "Permute": _permuted,
    "Transpose": _transposed,
    "T": _turned,
    "Unsqueeze": _with_new_axis,
    "Expand": _expanded,
    "Slice": _sliced,
    "Unbind": _unbound,
    "Unfold": _windowed,
    "Im2Col": _unfolded,
}
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_GRIDS.split(), _grid),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm"), _normalised),
    **dict.fromkeys(("Mm", "Addmm", "Bmm", "Baddbmm"), _product),
    **{name: _of_first(rule) for name, rule in _OF_FIRST.items()},
    "Cat": _joined,
    "Stack": _stacked,
    "CopySlices": _written,
    "AsStrided": _strided,
}
"""By the name of the node, without "Backward" and its number."""
