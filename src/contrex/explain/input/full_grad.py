"""FullGrad (Srinivas and Fleuret, NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from contrex.errors import LayerError
from contrex.explain.explainer import Explainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.diagnosis import no_gradient
from contrex.explain.forward.functions import intercepted
from contrex.explain.forward.in_place import beside_views, tensors_in, written
from contrex.models.axes import Lost
from contrex.models.following import Followed
from contrex.models.graph import Graph
from contrex.models.reading import Reading, possible_readings
from contrex.ops.geometry import upsampling_matrix
from contrex.ops.scores import Question

_CONVOLUTIONS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)}
_ACTIVATIONS = {
    "celu",
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "mish",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
}
"""Element-wise torch functions, by name, for which `eta(x) = eta'(x) x` does not hold, as it does for ReLUs."""
_LIMITS = {"clamp", "clamp_max", "clamp_min", "threshold"}
"""The same, with limits as arguments."""
_SUMS = {
    *("add", "iadd", "radd", "sub", "isub", "rsub", "subtract", "cat", "concat", "concatenate", "stack"),
    *("addmm", "addmv", "addbmm", "baddbmm"),
}
"""Torch functions that may put constants beside what depends on the images: what they give for zeros is a bias."""
_PRODUCTS = {"bmm", "div", "einsum", "imul", "matmul", "mul", "truediv"}
_WITHOUT_BIAS = {
    "group_norm",
    "instance_norm",
    "layer_norm",
    "multi_head_attention_forward",
    "normalize",
    "rms_norm",
    "scaled_dot_product_attention",
    "softmax",
}
"""Torch functions through which a score cannot be divided into parts of biases."""
Function = Callable[..., object]


@dataclass(frozen=True, eq=False)
class Bias:
    """What a function adds to its output, against which it broadcasts; where that is in the graph, and its shape."""

    value: Tensor
    edge: GradientEdge
    shape: torch.Size


@dataclass(frozen=True, eq=False)
class BiasedPass(Pass):
    """A forward pass with the biases met on the way, and how what each is added to is read as maps (None: no grid)."""

    biases: Sequence[Bias] = ()
    maps: Sequence[Reading | None] = ()


class FullGrad(Explainer):
    """`sum_c x_c dS/dx_c + sum_l U(sum_c b_lc dS/dz_lc)`: what the pixels and what the biases b of all layers l, with
    output z, contribute (section 3); U spreads a layer's cells over the pixels.

    Biases are those of convolutions, linear layers and batch norms (`beta - gamma mu / sigma`), and the implicit biases
    `eta(x) - eta'(x) x` of element-wise activations. So the map sums to the score (completeness)
    for any weighted sum of logits, where the network is made of these, ReLUs, pooling, sums and concatenations. Linear
    layers on vectors have no place: their part is spread evenly. Products of activations, attention and other norms
    are no affine maps; networks with them are refused by a `LayerError`.

    Deviations: section 4 and the published code take the absolute value of every part and stretch it to [0, 1] before
    they add them, and drop linear layers. That loses sign, scale and completeness, and makes a contrast something else
    than the difference of explanations, so it is left out. U is bilinear upsampling with each cell's weights scaled to
    sum 1, so that a part keeps its sum.
    """

    name = "full_grad"
    unit = "share of the {score}"
    ranks = (1, 2, 3)

    def _forward(self, images: Tensor, *, differentiable: bool) -> BiasedPass:
        recorder = _Recorder(self.model, differentiable=differentiable)
        with intercepted(beside_views(recorder)):
            run = capture.forward(self.model, images, (), graph="all" if differentiable else "head")
        biases = recorder.biases
        return BiasedPass(run.images, run.logits, run.features, biases=biases, maps=self._grids(run, biases))

    def _grids(self, run: Pass, biases: Sequence[Bias]) -> list[Reading | None]:
        """How what each bias is added to is read as maps; None for vectors, which have no place in the image."""
        followed = Followed(Graph(run.logits, run.images), run.images.ndim - 2)
        grids: list[Reading | None] = []
        for bias in biases:
            known = followed.axes((bias.edge.node, bias.edge.output_nr))
            found = possible_readings(known, bias.shape, run.images.shape, self.model, self.model)
            # Behind the last pooling [N,C,1,1] is a vector: it has no cells whose places could be mistaken.
            is_vector = len(bias.shape) == 2 or (isinstance(known, Lost) and sum(n > 1 for n in bias.shape[1:]) <= 1)
            if (known is None or isinstance(known, Lost)) and not is_vector and len(found) != 1:
                raise LayerError(
                    "FullGrad lays what each bias contributes over the image, and nothing in "
                    f"{type(self.model).__name__} tells where the cells of a tensor {list(bias.shape)} lie: use "
                    "IntegratedGradients or GradientTimesInput."
                )
            grids.append(found[0] if found else None)
        return grids

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, BiasedPass)
        biases = run.biases
        rows = question.cotangents(run.logits)
        maps = []
        for index, row in enumerate(rows.unbind(1)):
            gradients = torch.autograd.grad(
                run.logits,
                [get_gradient_edge(run.images), *(bias.edge for bias in biases)],
                row,
                retain_graph=differentiable or run.is_shared or index < rows.shape[1] - 1,
                create_graph=differentiable,
                allow_unused=True,
            )
            with torch.set_grad_enabled(differentiable), torch.autocast(row.device.type, enabled=False):
                precise = [None if g is None else g.to(row) for g in gradients]
                heatmap, magnitude = _full_gradient(run, precise, self.model)
                maps.append(heatmap)
            if not any(module.training for module in self.model.modules()):  # statistics of the batch are no constants
                self._check_sum(heatmap.detach(), magnitude, (row * run.logits).sum(1).detach())
        return torch.stack(maps, 1)

    def _check_sum(self, heatmap: Tensor, magnitude: Tensor, score: Tensor) -> None:
        """Refuse maps `[N,H,W]` that do not sum to the scores `[N]`, but for rounding, a share of `magnitude` [N]."""
        total = heatmap.flatten(1).sum(1)
        far = (total - score).abs() > _tolerance(capture.resolution(self.model, score)) * magnitude
        if bool(far.any()):
            index = int(far.nonzero()[0])
            raise LayerError(
                f"FullGrad divides the score among biases, and some of {type(self.model).__name__} are hidden from it: "
                f"the map of image {index} sums to {float(total[index]):.4g}, the score is {float(score[index]):.4g}. "
                "Where the network has no scripted or traced parts, no autograd function of its own and no products of "
                "activations, it is complete; else use IntegratedGradients or GradientTimesInput."
            )


class _Recorder:
    """Sees each torch function of a pass and keeps the biases that they add."""

    def __init__(self, model: nn.Module, *, differentiable: bool) -> None:
        self.biases: list[Bias] = []
        self._parameters = {id(parameter) for parameter in model.parameters()}
        self._constants: dict[int, Tensor] = {}
        self._differentiable = differentiable

    def __call__(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        value = self._bias(function, args, kwargs)  # now: it may change its input
        output = function(*args, **kwargs)
        # `expand_as` and its like take only the shape or dtype of their second argument.
        is_as_another = getattr(function, "__name__", "").endswith("_as")
        tensors = list(tensors_in(args[:1] if is_as_another else (args, kwargs)))
        if isinstance(output, Tensor) and output.requires_grad:
            if value is not None:
                self.biases.append(Bias(value, get_gradient_edge(output), output.shape))
            elif tensors and not any(map(self._is_activation, tensors)):
                self._constants[id(output)] = output  # kept, so that no other tensor takes over the id
        return output

    def _is_activation(self, value: object) -> bool:
        """Whether it depends on the images, as far as is known: parameters and what is made of them alone do not."""
        is_variable = isinstance(value, Tensor) and value.requires_grad
        return is_variable and id(value) not in self._parameters and id(value) not in self._constants

    def _bias(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """What a torch function adds to its output, as called; None for those that add nothing or are not known."""
        name = getattr(function, "__name__", "").strip("_")
        activations = sum(map(self._is_activation, tensors_in((args, kwargs))))
        if not activations:
            return None
        if name in _WITHOUT_BIAS or (name in _PRODUCTS and activations > 1):
            raise LayerError(
                f"FullGrad divides the score among biases, which a network with {name} of activations does not allow: "
                "use IntegratedGradients or GradientTimesInput."
            )
        if name in _SUMS:
            return self._sum_bias(function, args, kwargs)
        if name in _CONVOLUTIONS:
            bias = _argument(2, "bias", args, kwargs)
            return None if bias is None else bias.reshape(-1, *[1] * (args[0].ndim - 2))
        if name == "linear":
            return _argument(2, "bias", args, kwargs)
        if name == "batch_norm":
            return _batch_norm_bias(*args, **kwargs, in_training=self._differentiable)
        if name in _ACTIVATIONS | _LIMITS and activations == 1:
            return _activation_bias(function, args, kwargs, differentiable=self._differentiable)
        return None

    def _sum_bias(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """What the function gives where zeros stand for all that depends on the images."""
        operands = args[0] if args and isinstance(args[0], (tuple, list)) else args[:2]
        if all(map(self._is_activation, (*operands, *args[2:]))):
            return None

        def without_images(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return [without_images(item) for item in value]
            return torch.zeros_like(value) if self._is_activation(value) else value

        changed = [without_images(value) for value in args]
        if written(function, args, kwargs) is not None:
            changed[0] = changed[0].clone()
        with torch.set_grad_enabled(self._differentiable):
            value = function(*changed, **kwargs)
        return cast(Tensor, value)


def _tolerance(resolution: float) -> float:
    """How far the sum may be from the score, as a share of all parts without their signs."""
    return min(30 * resolution, 0.03)  # networks of up to 120 layers were off by 3 steps of float32, 0.4 of bfloat16


def _full_gradient(run: BiasedPass, gradients: Sequence[Tensor | None], model: nn.Module) -> tuple[Tensor, Tensor]:
    """The map `[N,H,W]` from the gradients at the images and at each bias, and the sum `[N]` of all that is added up
    in it, without signs; a gradient is None where the score does not depend."""
    images, (at_images, *at_biases) = run.images, gradients
    if at_images is None:
        raise no_gradient("`images`", model)
    pixels = images * at_images
    heatmap, magnitude = pixels.sum(1), _magnitude(pixels)
    parts: dict[torch.Size, Tensor] = {}
    for bias, maps, gradient in zip(run.biases, run.maps, at_biases, strict=True):
        if gradient is not None:
            contribution = bias.value.to(gradient) * gradient
            part = _part(contribution, maps, images.ndim - 2)
            parts[part.shape] = parts[part.shape] + part if part.shape in parts else part
            magnitude = magnitude + _magnitude(contribution.reshape(len(images), -1))
    for part in parts.values():
        along = [_spreading(*sides, like=part) for sides in zip(part.shape[1:], images.shape[2:], strict=True)]
        heatmap = heatmap + _spread(part, along)
    return heatmap, magnitude


def _spread(part: Tensor, along: Sequence[Tensor]) -> Tensor:
    """A part of the map with its cells spread along each axis."""
    if len(along) == 2:
        rows, columns = along
        return rows @ part @ columns.mT
    for axis, matrix in enumerate(along, start=1):
        part = torch.movedim(torch.movedim(part, axis, -1) @ matrix.mT, -1, axis)
    return part


def _magnitude(contribution: Tensor) -> Tensor:
    return contribution.detach().abs().flatten(1).sum(1)


def _part(contribution: Tensor, maps: Reading | None, rank: int) -> Tensor:
    """The part of one bias in the map, `sum_c b_c dS/dz_c` `[N,h,w]`; one cell where z is no grid."""
    total = contribution.flatten(1).sum(1)[:, None, None]
    if maps is None:
        return total.view(-1, *[1] * rank)
    grid = maps(contribution).sum(1)
    grid = grid + (total - grid.sum((1, 2), keepdim=True)) / grid[0].numel()  # the tokens before the grid
    return grid.reshape(-1, *maps.grid)


def _spreading(size_in: int, size_out: int, *, like: Tensor) -> Tensor:
    """`[size_out, size_in]`: how each cell of one axis is spread over the pixels of another; every column sums to 1."""
    # A grid finer than the image: a cell gives to the pixels from which it would be interpolated, so rows sum to 1
    # before the transpose and columns after it.
    if size_in > size_out:
        return upsampling_matrix(size_out, size_in, like=like).mT
    matrix = upsampling_matrix(size_in, size_out, like=like)
    return matrix / matrix.sum(0)


def _argument(place: int, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    found: Tensor | None = args[place] if len(args) > place else kwargs.get(name)
    return found


def _batch_norm_bias(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    in_training: bool,
) -> Tensor:
    """`beta - gamma mu / sigma`, with the statistics that `F.batch_norm` would use."""
    if training or running_mean is None or running_var is None:
        if not in_training:
            raise LayerError(
                "FullGrad needs batch norms with running statistics, and none of weights (weight standardisation): use "
                "IntegratedGradients or GradientTimesInput."
            )
        axes = [axis for axis in range(images.ndim) if axis != 1]
        running_var, running_mean = torch.var_mean(images, axes, correction=0)
    value = -running_mean / (running_var + eps).sqrt()
    value = value if weight is None else value * weight
    value = value if bias is None else value + bias
    return value.reshape(-1, *[1] * (images.ndim - 2))


def _activation_bias(
    function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], *, differentiable: bool
) -> Tensor:
    """The bias of an activation function eta: `eta(x) - eta'(x) x`, cell by cell."""
    with torch.enable_grad():
        x = args[0].clone() if differentiable else args[0].detach().requires_grad_()  # it may be changed in place
        y = cast(Tensor, function(x.clone(), *args[1:], **kwargs))
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=differentiable)
        value: Tensor = y - slope * x
    return value if differentiable else value.detach()
