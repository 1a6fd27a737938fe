"""Which rule follows the axes through each of torch's functions, by the name of its node in the graph.

Functions that move cells (a flip, a gather) or mix all of them (a linear layer over the grid) lose them.
"""

from __future__ import annotations

from collections.abc import Mapping

from contrex.models import axis_grids as grids
from contrex.models import axis_sums as sums
from contrex.models import axis_views as views
from contrex.models.axis_step import FirstRule, Rule, of_first

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
_GRIDS_OF_OTHER_RANKS = (
    "UpsampleNearest1D UpsampleLinear1D UpsampleNearestExact1D MaxPool3DWithIndices AvgPool3D AdaptiveAvgPool3D "
    "AdaptiveMaxPool3D UpsampleNearest3D UpsampleTrilinear3D UpsampleNearestExact3D"
)
_OF_FIRST: Mapping[str, FirstRule] = {
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Reshape", "Squeeze"), views.viewed),
    **dict.fromkeys(("Select", "Amax", "Amin", "Max", "Min", "Mean", "Sum"), views.reduced),
    **dict.fromkeys(("Split", "SplitWithSizes", "Chunk"), views.split),
    **dict.fromkeys(("ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D"), views.padded),
    **dict.fromkeys(
        ("Flip", "Roll", "Index", "IndexSelect", "Gather", "Sort", "Topk", "Cumsum", "Cumprod"), views.moved
    ),
    **dict.fromkeys(("GridSampler2D", "Rot90", "Diagonal"), views.lost),
    **dict.fromkeys((f"ScaledDotProduct{kind}" for kind in _ATTENTION.split()), sums.attended),
    "Permute": views.permuted,
    "Transpose": views.transposed,
    "T": views.turned,
    "Unsqueeze": views.with_new_axis,
    "Expand": views.expanded,
    "Slice": views.sliced,
    "Unbind": views.unbound,
    "Unfold": views.windowed,
    "Im2Col": grids.unfolded,
}
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), sums.elementwise),
    **dict.fromkeys(_GRIDS.split(), grids.grid_of),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm"), grids.normalised),
    **dict.fromkeys(("Mm", "Addmm", "Bmm", "Baddbmm"), sums.product),
    **{name: of_first(rule) for name, rule in _OF_FIRST.items()},
    "Cat": sums.joined,
    "Stack": sums.stacked,
    "CopySlices": sums.written,
    "AsStrided": views.strided,
}
"""By the name of the node, without "Backward" and its number."""
OF_OTHER_RANKS: Mapping[str, Rule] = {
    **dict.fromkeys(_GRIDS_OF_OTHER_RANKS.split(), grids.grid_of),
    **dict.fromkeys(
        (f"{kind}Pad{rank}D" for kind in ("Reflection", "Replication") for rank in (1, 3)), of_first(views.padded)
    ),
}
"""Those that signals and volumes have beside."""
