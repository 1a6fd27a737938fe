"""FullGrad (Srinivas and Fleuret, NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from contrex.errors import LayerError
from contrex.explain import capture
from contrex.explain.capture import Pass
from contrex.explain.diagnosis import no_gradient
from contrex.explain.explainer import Explainer
from contrex.models.layers import feature_maps
from contrex.ops.geometry import upsampling_matrix
from contrex.ops.scores import Question

_CONVOLUTIONS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)}
_ACTIVATIONS = {
    "celu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "mish",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
}
"""Element-wise torch functions, by name, for which `eta(x) = eta'(x) x` does not hold, as it does for ReLUs."""
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
    """What a function adds to its output - it broadcasts against that - and the output's place in the graph."""

    value: Tensor
    edge: GradientEdge


@dataclass(frozen=True, eq=False)
class BiasedPass(Pass):
    """A forward pass with the biases met on the way."""

    biases: Sequence[Bias] = ()


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

    def _forward(self, images: Tensor, *, differentiable: bool) -> BiasedPass:
        biases: list[Bias] = []

        def record(function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
            value = _bias(function, args, kwargs, differentiable=differentiable)  # now: it may change its input
            output = function(*args, **kwargs)
            if value is not None and isinstance(output, Tensor) and output.requires_grad:
                biases.append(Bias(value, get_gradient_edge(output)))
            return output

        with capture.intercepted(record):
            run = capture.forward(self.model, images, (), graph="all" if differentiable else "head")
        return BiasedPass(run.images, run.logits, run.features, biases=biases)

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        biases = run.biases if isinstance(run, BiasedPass) else ()
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
                maps.append(_full_gradient(run.images, biases, precise, self.model))
        return torch.stack(maps, 1)


def _full_gradient(
    images: Tensor, biases: Sequence[Bias], gradients: Sequence[Tensor | None], model: nn.Module
) -> Tensor:
    """The map `[N,H,W]` from the gradients at the images and at each bias; None where the score does not depend."""
    at_images, *at_biases = gradients
    if at_images is None:
        raise no_gradient("`images`", model)
    heatmap = (images * at_images).sum(1)
    parts: dict[torch.Size, Tensor] = {}
    for bias, gradient in zip(biases, at_biases, strict=True):
        if gradient is not None:
            part = _part(bias.value, gradient, images)
            parts[part.shape] = parts[part.shape] + part if part.shape in parts else part
    for part in parts.values():
        rows, columns = (_spreading(part.shape[axis], images.shape[axis + 1], like=part) for axis in (1, 2))
        heatmap = heatmap + rows @ part @ columns.mT
    return heatmap


def _part(bias: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
    """`sum_c b_c dS/dz_c` `[N,h,w]`; one cell where z is no grid."""
    num = len(images)
    contribution = bias.to(gradient) * gradient
    total = contribution.reshape(num, -1).sum(1)[:, None, None]
    maps = feature_maps(contribution, (images.shape[2], images.shape[3]), num)
    if maps is not None:
        grid = maps(contribution).sum(1)
        return grid + (total - grid.sum((1, 2), keepdim=True)) / grid[0].numel()  # the tokens before the grid
    if contribution.ndim == 4 and len(contribution) == num:
        return contribution.sum(1)
    return total


def _spreading(size_in: int, size_out: int, *, like: Tensor) -> Tensor:
    """`[size_out, size_in]`: how each cell of one axis is spread over the pixels of another; every column sums to 1."""
    if size_in > size_out:
        return upsampling_matrix(size_out, size_in, like=like).mT
    matrix = upsampling_matrix(size_in, size_out, like=like)
    return matrix / matrix.sum(0)


def _bias(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], *, differentiable: bool) -> Tensor | None:
    """What a torch function adds to its output, as called; None for those that add nothing or are not known."""
    name = getattr(function, "__name__", "").strip("_")
    if name in _WITHOUT_BIAS or (name in _PRODUCTS and sum(map(_is_activation, args)) > 1):
        raise LayerError(
            f"FullGrad divides the score among biases, which a network with {name} of activations does not allow: use "
            "IntegratedGradients or GradientTimesInput."
        )
    if name in _CONVOLUTIONS:
        bias = _argument(2, "bias", args, kwargs)
        return None if bias is None else bias.reshape(-1, *[1] * (args[0].ndim - 2))
    if name == "linear":
        return _argument(2, "bias", args, kwargs)
    if name == "batch_norm":
        return _batch_norm_bias(*args, **kwargs, in_training=differentiable)
    if name in _ACTIVATIONS:
        return _activation_bias(function, args, kwargs, differentiable=differentiable)
    return None


def _is_activation(value: object) -> bool:
    """Whether it depends on the images; parameters are leaves of the graph."""
    return isinstance(value, Tensor) and value.grad_fn is not None


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
    """`eta(x) - eta'(x) x`, cell by cell."""
    with torch.enable_grad():
        x = args[0].clone() if differentiable else args[0].detach().requires_grad_()  # it may be changed in place
        y = cast(Tensor, function(x.clone(), *args[1:], **kwargs))
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=differentiable)
        value: Tensor = y - slope * x
    return value if differentiable else value.detach()
