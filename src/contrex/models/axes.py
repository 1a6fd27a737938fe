"""What the axes of a layer's output are: rows and columns of a grid, tokens, channels.

Shapes do not tell: [1,96,96,96] may be channels-first or channels-last, 25 tokens may be a 5 x 5 grid or a 4 x 4 grid
behind a class token and eight registers, and 36 steps of an LSTM are no grid at all. The autograd graph of a pass does
tell. Axes are followed through it from the images on: a convolution gives [N,C,h,w], a permutation moves axes, a view
splits and joins them, a concatenation sets tokens before the grid, a linear layer makes new channels. What a function
without a rule here gives is unknown, and a sum takes the axes of the addend that is known (the residual stream).

An axis is a list of factors, the slowest first, as in einops: patches of 16 pixels split the rows [h, size 224, stride
1] into [h, 14, 16] and [h, 16, 1]; the first is a coarser grid, the second goes into the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from contrex.models.graph import Edge, Graph


class Factor(NamedTuple):
    """A part of an axis: `role` is images n, rows h, columns w or c for anything else, channels above all."""

    role: str
    size: int
    stride: int = 1


class Axis(NamedTuple):
    """The factors of an axis, with the entries that stand `before` and `after` them (class and register tokens).

    Where such an axis was joined with another (the tokens of all images in a row) it is a factor as a whole.
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
    def is_whole(self) -> bool:
        """Whether nothing stands before or behind the factors."""
        return not (self.before or self.after)


Axes = tuple[Axis, ...]


class Foreign:
    """In place of axes: what the weights alone determine, such as learned queries, and what is added up on it."""


FOREIGN = Foreign()
Known = Axes | Foreign | None
"""The axes of a tensor; None where they are unknown."""


@dataclass(frozen=True)
class Step:
    """One function of the pass: its node, the axes of its inputs in order, and the shape of what it gives."""

    node: Any
    inputs: Sequence[Known]
    shape: tuple[int, ...]

    def saved(self, name: str) -> Any:
        """An argument of the function, which the node keeps for the backward pass; negative axes are counted up."""
        value = getattr(self.node, f"_saved_{name}")
        return value - 2**64 if isinstance(value, int) and value >= 2**63 else value

    @property
    def first(self) -> Axes | None:
        """The axes of the first input where they are known."""
        return _axes(self.inputs[0]) if self.inputs else None


def follow_axes(graph: Graph) -> dict[Edge, Known]:
    """The axes of every tensor in the graph, by its edge, from those of the images on."""
    found: dict[Edge, Known] = {}
    for node in graph.nodes:
        inputs = [FOREIGN if edge[0] is None else found[edge] for edge in node.next_functions]
        for place, shape in enumerate(_shapes(node)):
            if not graph.reaches_source(node):
                found[node, place] = FOREIGN
            elif graph.is_source(node):
                found[node, place] = _of_images(shape)
            else:
                found[node, place] = _axes_of(Step(node, inputs, shape))
    return found


def _of_images(shape: tuple[int, ...]) -> Axes:
    return tuple(Axis((Factor(role, size),)) for role, size in zip("nchw", shape, strict=True))


def _shapes(node: Any) -> list[tuple[int, ...]]:
    """The shapes of a node's outputs."""
    return [tuple(output.shape) for output in node._input_metadata]


def _axes_of(step: Step) -> Known:
    name = step.node.name().removeprefix("torch::autograd::").rstrip("0123456789").removesuffix("Backward")
    axes = RULES[name](step) if name in RULES else None
    is_sound = not isinstance(axes, tuple) or _sizes(axes) == step.shape
    return axes if is_sound else None


def _axes(known: Known) -> Axes | None:
    return known if isinstance(known, tuple) else None


def _sizes(axes: Axes) -> tuple[int, ...]:
    return tuple(axis.size for axis in axes)


# --- rules: from the axes of the inputs to those of the output -------------------------------------------------------


def _elementwise(step: Step) -> Known:
    """Those of the inputs that have the output's shape, where all that are known agree."""
    full = [axes for axes in map(_axes, step.inputs) if axes is not None and _sizes(axes) == step.shape]
    if full:
        return full[0] if all(_without_ones(axes) == _without_ones(full[0]) for axes in full) else None
    return FOREIGN if _has_foreign_addend(step) else None


def _without_ones(axes: Axes) -> Axes:
    """The axes without the factors of size 1, which views drop."""
    return tuple(Axis(tuple(f for f in axis.factors if f.size > 1), axis.before, axis.after) for axis in axes)


def _has_foreign_addend(step: Step) -> bool:
    """Whether one of the inputs is made of weights alone, or on top of them, and as large as the output."""
    pairs = zip(step.node.next_functions, step.inputs, strict=True)
    return any(known is FOREIGN and _shape_at(edge) == step.shape for edge, known in pairs)


def _shape_at(edge: Edge) -> tuple[int, ...] | None:
    """The shape of a tensor; None where it is a constant, which no graph knows."""
    return None if edge[0] is None else _shapes(edge[0])[edge[1]]


def _grid(step: Step) -> Known:
    """[N,C,h,w] of a convolution, a pooling or an upsampling: the axes keep their roles, the grid is a new one.

    Where the input is unknown these functions say themselves which axis is which.
    """
    if len(step.shape) != 4:
        return None
    before = step.first
    roles = "nchw"
    if before is not None and len(before) == 4:
        rows, columns = before[2].roles, before[3].roles
        roles = f"nc{rows}{columns}" if sorted(rows + columns) == ["h", "w"] else roles
    return tuple(Axis((Factor(role, size),)) for role, size in zip(roles, step.shape, strict=True))


def _normalised(step: Step) -> Known:
    """Batch and group norm: as the input; on four axes they say themselves that channels are the second."""
    return step.first or (_grid(step) if len(step.shape) == 4 else None)


def _permuted(step: Step) -> Known:
    before = step.first
    return before and tuple(before[axis] for axis in step.saved("dims"))


def _transposed(step: Step) -> Known:
    before = step.first
    if before is None:
        return None
    order = list(range(len(before)))
    one, other = (step.saved(name) % len(before) for name in ("dim0", "dim1"))
    order[one], order[other] = other, one
    return tuple(before[axis] for axis in order)


def _turned(step: Step) -> Known:
    """`x.t()`."""
    return step.first and step.first[::-1]


def _viewed(step: Step) -> Known:
    return step.first and regroup(step.first, step.shape)


def _with_new_axis(step: Step) -> Known:
    before = step.first
    if before is None:
        return None
    place = step.saved("dim") % len(step.shape)
    return (*before[:place], Axis(()), *before[place:])


def _reduced(step: Step) -> Known:
    """The mean, sum or maximum over some axes: the others stay."""
    before, places = step.first, getattr(step.node, "_saved_dim", None)
    if before is None or places is None:
        return None
    places = (places,) if isinstance(places, int) else places
    return _removed(before, [place - 2**64 if place >= 2**63 else place for place in places], step.shape)


def _removed(before: Axes, places: Sequence[int], shape: tuple[int, ...]) -> Axes:
    gone = {place % len(before) for place in places}
    if len(shape) == len(before):  # keepdim
        return tuple(Axis(()) if index in gone else axis for index, axis in enumerate(before))
    return tuple(axis for index, axis in enumerate(before) if index not in gone)


def _sliced(step: Step) -> Known:
    """Every so many rows of a whole grid, a stretch of tokens that leaves the grid whole, or part of the channels."""
    before = step.first
    if before is None:
        return None
    place = step.saved("dim") % len(before)
    axis, num = before[place], step.shape[place]
    start = step.saved("start") + (axis.size if step.saved("start") < 0 else 0)
    return before if num == axis.size else _with_axis(before, place, _stretch(axis, start, num, step.saved("step")))


def _stretch(axis: Axis, start: int, num: int, stride: int) -> Axis | None:
    if set(axis.roles) <= {"c"}:
        return Axis((Factor("c", num),))
    if stride > 1:
        is_all = (
            len(axis.factors) == 1 and axis.is_whole and start < stride and num == -(-(axis.size - start) // stride)
        )
        return Axis((Factor(axis.roles, num),)) if is_all else None
    before, after = axis.before - start, axis.after - (axis.size - start - num)
    return Axis(axis.factors, before, after) if before >= 0 and after >= 0 else None


def _padded(step: Step) -> Known:
    """Entries before and behind the grid, or more channels."""
    before, amounts = step.first, step.saved("pad")
    if before is None:
        return None
    axes = list(before)
    for place, (front, back) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=1):
        axis = axes[-place]
        if set(axis.roles) <= {"c"}:
            axes[-place] = Axis((Factor("c", axis.size + front + back),))
        elif min(axis.before + front, axis.after + back) >= 0:
            axes[-place] = Axis(axis.factors, axis.before + front, axis.after + back)
        else:
            return None
    return tuple(axes)


def _split(step: Step) -> Known:
    """Parts of the channels; parts of a grid are unknown."""
    before = step.first
    if before is None:
        return None
    place = step.saved("dim") % len(before)
    axis = before[place] if set(before[place].roles) <= {"c"} else None
    return axis and _with_axis(before, place, Axis((Factor("c", step.shape[place]),)))


def _unbound(step: Step) -> Known:
    """Entries of an axis that is no part of the grid."""
    before = step.first
    if before is None:
        return None
    place = step.saved("dim") % len(before)
    return _removed(before, [place], step.shape) if set(before[place].roles) <= {"c"} else None


def _joined(step: Step) -> Known:
    """Channels of all inputs, or one input with a grid and tokens before or behind it."""
    place = step.saved("dim") % len(step.shape)
    known = [(index, axes) for index, axes in enumerate(map(_axes, step.inputs)) if axes is not None]
    with_grid = [(index, axes) for index, axes in known if set(axes[place].roles) & {"h", "w"}]
    if not with_grid:
        return _with_axis(known[0][1], place, Axis((Factor("c", step.shape[place]),))) if known else None
    if len(with_grid) > 1:
        return None
    index, axes = with_grid[0]
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
    return None if axis is None else (*axes[:place], axis, *axes[place + 1 :])


def _product(step: Step) -> Known:
    """`a @ b`, also batched or with a bias: the rows of a and the columns of b; those of weights are new channels."""
    one, other = step.inputs[-2], step.inputs[-1]
    new = [Axis((Factor("c", size),)) for size in step.shape]
    if isinstance(one, tuple):
        last = other[-1] if isinstance(other, tuple) else new[-1]
        return None if other is None else (*one[:-1], last)
    return (*other[:-2], new[-2], other[-1]) if one is FOREIGN and isinstance(other, tuple) else None


def _attended(step: Step) -> Known:
    """What attention gives for each query [N,heads,T,d]."""
    queries = step.first
    return queries and (*queries[:-1], Axis((Factor("c", step.shape[-1]),)))


def _unfolded(step: Step) -> Known:
    """Patches [N,C k k,h w] of `F.unfold`."""
    before = step.first
    if before is None or [axis.roles for axis in before[2:]] != ["h", "w"]:
        return None
    options = [step.saved(name) for name in ("kernel_size", "dilation", "padding", "stride")]
    grid = [
        (axis.size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for axis, kernel, dilation, padding, stride in zip(before[2:], *options, strict=True)
    ]
    tokens = Axis(tuple(Factor(role, size) for role, size in zip("hw", grid, strict=True)))
    return before[0], Axis((Factor("c", step.shape[1]),)), tokens


def regroup(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes after a view as `shape`: factors are split and joined in order; None where that is no such view.

    >>> rows, columns = Axis((Factor("h", 32),)), Axis((Factor("w", 48),))
    >>> patches = regroup((rows, columns), (2, 16, 3, 16))
    >>> [axis.factors for axis in patches][:2]
    [(Factor(role='h', size=2, stride=16),), (Factor(role='h', size=16, stride=1),)]
    >>> regroup(patches, (32, 48)) == (rows, columns)
    True
    """
    waiting: list[Factor | Axis] = []
    for axis in axes:
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
            if item.size % rest or isinstance(item, Axis):  # with entries beside its factors it cannot be split
                return None
            role, whole, stride = item
            item = Factor(role, rest, stride * (whole // rest))
            waiting.append(Factor(role, whole // rest, stride))
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
            merged[-1] = Factor(factor.role, last.size * factor.size, factor.stride)
        else:
            merged.append(factor)
    return merged


def _continues(slow: Factor, fast: Factor) -> bool:
    return slow.role == fast.role and (fast.role == "c" or slow.stride == fast.size * fast.stride)


_ELEMENTWISE = (
    "Abs Add Addcdiv Addcmul Alias Celu Clamp ClampMax ClampMin Clone Copy CopyBackwards CopySlices Div Elu Erf Exp "
    "Expm1 FusedDropout Gelu Hardsigmoid Hardswish Hardtanh LeakyRelu Lerp Log Log1P LogSoftmax LogSigmoid Maximum "
    "Minimum Mish Mul NativeDropout Neg Pow PreluKernel Reciprocal Relu Rsqrt Rsub Selu Sigmoid Silu Softmax Softplus "
    "Softshrink Softsign Sqrt Sub Tanh Threshold ToCopy Where NativeLayerNorm FusedRmsNorm RreluWithNoise MaskedFill "
    "Hardshrink Expand"
)
_GRIDS = (
    "Convolution ConvolutionOverrideable MkldnnConvolution MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D "
    "MkldnnAdaptiveAvgPool2D AdaptiveMaxPool2D UpsampleNearest2D UpsampleBilinear2D UpsampleBicubic2D "
    "UpsampleNearestExact2D UpsampleBilinear2DAa PixelShuffle PixelUnshuffle"
)

RULES: Mapping[str, Callable[[Step], Known]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_GRIDS.split(), _grid),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm"), _normalised),
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Reshape"), _viewed),
    **dict.fromkeys(("Mm", "Addmm", "Bmm", "Baddbmm"), _product),
    **dict.fromkeys(("Select", "Amax", "Amin", "Max", "Min", "Mean", "Sum"), _reduced),
    **dict.fromkeys(("Split", "SplitWithSizes", "Chunk"), _split),
    "Permute": _permuted,
    "Transpose": _transposed,
    "T": _turned,
    "Unsqueeze": _with_new_axis,
    "Squeeze": _viewed,
    "Slice": _sliced,
    "Unbind": _unbound,
    "Cat": _joined,
    "ConstantPadNd": _padded,
    "Im2Col": _unfolded,
    **dict.fromkeys(
        (
            "ScaledDotProductFlashAttentionForCpu",
            "ScaledDotProductFlashAttention",
            "ScaledDotProductEfficientAttention",
            "ScaledDotProductCudnnAttention",
            "ScaledDotProductFusedAttentionOverrideable",
        ),
        _attended,
    ),
}
"""By the name of the node, without "Backward" and its number."""
