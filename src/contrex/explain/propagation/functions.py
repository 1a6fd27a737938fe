"""The rule of each torch function: how the relevance of what it gives is shared out among what it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from contrex.explain.propagation.rules import Kind, LinearMap, Rules
from contrex.explain.propagation.tracked import Tracked


@dataclass(eq=False)
class Classifier:
    """The last layer with weights; while `is_flipped`, they count with their sign flipped."""

    layer: LinearMap | None = None
    is_flipped: bool = False


@dataclass(eq=False)
class Trace:
    """What propagation needs of a forward pass once it is over: the classifier, and its input in the graph."""

    classifier: Classifier
    classifier_input: Tensor | None = None


_PASSING = {
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "prelu", "rrelu", "threshold", "elu", "celu"),
    *("selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardshrink", "sigmoid", "tanh", "softplus"),
    *("softsign", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}
"""Functions of each element alone, which hand on its relevance as it is."""
_SUMS = {"add": 1, "iadd": 1, "radd": 1, "sub": -1, "isub": -1, "subtract": -1}
"""Sums of two, and the sign of the second."""
_PRODUCTS = {"mul", "imul", "rmul", "multiply"}
_QUOTIENTS = {"div", "idiv", "truediv", "itruediv", "divide", "true_divide"}
"""With a constant, both pass relevance; products and quotients of data have no rule."""
_AVERAGES = {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "mean", "sum"}
_WEIGHTED: dict[str, Kind] = {"conv1d": "convolution", "conv2d": "convolution", "linear": "dense"}


class _Relevance(torch.autograd.Function):
    """Gives a value a backward pass that is `rule`: from its relevance to that of each of `inputs`."""

    @staticmethod
    def forward(ctx: Any, rule: Callable[[Tensor], Sequence[Tensor]], value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.dtypes = rule, [x.dtype for x in inputs]
        # A tensor of its own: autograd treats an input that is returned as it is as a view of it.
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        # Rules compute in float32 or better; autograd insists on the types of the inputs.
        shares = ctx.rule(relevance[0])
        return None, None, *[share.to(dtype) for share, dtype in zip(shares, ctx.dtypes, strict=True)]


@dataclass(frozen=True, eq=False)
class _Normalised:
    """What batch norm has made of `x`: `x * scale + shift` per channel."""

    x: Tensor
    scale: Tensor
    shift: Tensor


class FunctionRules:
    """Gives functions of one pass their rules, in the graph.

    Rules live in the graph, so none may hold on to this object or to a tensor with a graph: it would never be freed.
    """

    def __init__(self, model: nn.Module, rules: Rules, tracked: Tracked) -> None:
        self.trace = Trace(Classifier())
        self._rules, self._tracked = rules, tracked
        # By id, as tensors compare by their numbers. Parameters are kept by the model, and the outputs below by
        # `tracked` until the pass is over, so no id is taken over.
        self._names = {id(p): name.removesuffix("weight").rstrip(".") for name, p in model.named_parameters()}
        self._layers: dict[int, tuple[LinearMap, Tensor]] = {}
        """What gave an output: the layer with weights, and its input."""
        self._normalised: dict[int, _Normalised] = {}
        """What batch norm has made an output of."""

    def apply(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        num_data: int,
        is_writing: bool,
    ) -> Tensor | None:
        """Call a function, give its output the rule of its `name`, and return it; None where there is no rule."""
        if name in _SUMS and len(args) == 2 and not kwargs:
            return self._sum(func, args, _SUMS[name], is_writing=is_writing)
        if num_data > 1:
            return None
        if name in _PRODUCTS and len(args) == 2 and not kwargs:
            return self._passing(func, args, {}, is_writing=is_writing)
        if not self._tracked.is_data(args[0]):
            return None
        if name in _PASSING or (name in _QUOTIENTS and not kwargs):
            return self._passing(func, args, kwargs, is_writing=is_writing)
        if name in _AVERAGES:
            return self._average(func, *args, **kwargs)
        if name in _WEIGHTED:
            return self._weighted(func, _WEIGHTED[name], *args, **kwargs)
        if name == "batch_norm":
            return self._batch_norm(func, *args, **kwargs)
        return None

    def _passing(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_writing: bool
    ) -> Tensor:
        """Call a function of each element alone, or with a constant: relevance passes as it is."""
        (x,) = [t for t in args if self._tracked.is_data(t)]
        shape = x.shape
        value = _value(func, args, kwargs, is_writing=is_writing)
        return _given(lambda relevance: [relevance.sum_to_size(shape)], value, x)

    def _sum(self, func: Callable[..., Any], args: tuple[Any, ...], sign: int, *, is_writing: bool) -> Tensor:
        """Add or subtract: the rules say which share each addend has."""
        data = [(t, s) for t, s in zip(args, (1, sign), strict=True) if self._tracked.is_data(t)]
        constants = [(t, s) for t, s in zip(args, (1, sign), strict=True) if not self._tracked.is_data(t)]
        # Detached, as the rule below lives in the graph: it would keep the graph, and the graph the rule, alive.
        rules, values = self._rules, [(t.detach(), s) for t, s in data]
        value = _value(func, args, {}, is_writing=is_writing)
        kind: dict[str, Any] = {"dtype": torch.promote_types(value.dtype, torch.float32), "device": value.device}
        constant = [s * torch.as_tensor(t, **kind).detach().expand(value.shape) for t, s in constants]

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            addends = [s * t.to(**kind).expand(relevance.shape) for t, s in values]
            shares = rules.addends(addends, constant[0] if constant else None, relevance.to(**kind))
            return [share.sum_to_size(t.shape) for share, (t, _) in zip(shares, values, strict=True)]

        return _given(rule, value, *[t for t, _ in data])

    def _average(self, func: Callable[..., Any], x: Tensor, *options: Any, **keywords: Any) -> Tensor:
        """Average or add up: a linear map without weights."""

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            averaged: Tensor = func(x, *options, **keywords)
            return averaged

        layer = LinearMap(function, _precise(x), None, None, "pooling", self._tracked.are_pixels(x))
        with torch.no_grad():
            value = func(x.detach(), *options, **keywords)
        return self._shared(layer, value, x)

    def _weighted(
        self,
        func: Callable[..., Any],
        kind: Kind,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *options: Any,
        **keywords: Any,
    ) -> Tensor:
        """Apply a convolution or a dense layer, with the batch norm right before it where one was kept for it."""

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            mapped: Tensor = func(x, weight, None, *options, **keywords)
            return mapped

        with torch.no_grad():
            value = func(x.detach(), weight, bias, *options, **keywords)
        w, b = _precise(weight), None if bias is None else _precise(bias)
        # w (scale x + shift) + b = (w scale) x + (w shift + b). Only of vectors: in tokens [N,T,D] batch norm's
        # channels are not the axis that a dense layer mixes.
        normalised = self._normalised.get(id(x)) if kind == "dense" and x.ndim == 2 else None
        source = x
        if normalised is not None:
            source, shift = normalised.x, w @ normalised.shift
            w, b = w * normalised.scale, shift if b is None else b + shift
        name, is_first = self._names.get(id(weight), ""), self._tracked.are_pixels(source)
        return self._shared(LinearMap(function, _precise(source), w, b, kind, is_first, name), value, source)

    def _batch_norm(
        self,
        func: Callable[..., Any],
        x: Tensor,
        mean: Tensor | None,
        variance: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        """Normalise; the rule is folded into the layer before it, or kept for the dense layer behind it, and else it is
        that of a layer of its own; None where it has no running statistics."""
        if training or mean is None or variance is None:
            return None
        with torch.no_grad():
            value = func(x.detach(), mean, variance, weight, bias, training, momentum, eps)
            scale = (1.0 if weight is None else _precise(weight)) / (_precise(variance) + eps).sqrt()
            shift = (0.0 if bias is None else _precise(bias)) - _precise(mean) * scale
        if self._rules.folds_batch_norm and id(x) in self._layers:
            # scale (w x + b) + shift = (scale w) x + (scale b + shift): one map, so nothing is shared out to batch
            # norm's shift alone.
            layer, source = self._layers[id(x)]
            assert layer.weight is not None  # pooling is not among the layers
            weights = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
            shift = shift if layer.bias is None else shift + layer.bias * scale
            return self._shared(replace(layer, weight=weights, bias=shift), value, source)

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            assert weight is not None
            return x * weight.view(-1, *[1] * (x.ndim - 2))

        name, is_first = "" if weight is None else self._names.get(id(weight), ""), self._tracked.are_pixels(x)
        alone = LinearMap(function, _precise(x), scale, shift, "normalisation", is_first, name)
        output = self._shared(alone, value, x)
        if self._rules.folds_batch_norm:
            self._normalised[id(output)] = _Normalised(x, scale, shift)
        return output

    def _shared(self, layer: LinearMap, value: Tensor, source: Tensor) -> Tensor:
        """Give `value` the rule of a linear map of `source`."""
        rules, classifier = self._rules, self.trace.classifier

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            if classifier.is_flipped and classifier.layer is layer and layer.weight is not None:
                return [rules.linear(replace(layer, weight=-layer.weight), relevance)]
            return [rules.linear(layer, relevance)]

        output = _given(rule, value, source)
        if layer.kind in ("convolution", "dense"):
            self._layers[id(output)] = layer, source
            # Overwritten by each layer that follows: after the pass it is the last one, the classifier.
            self.trace.classifier.layer, self.trace.classifier_input = layer, source
        return output


def _value(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], *, is_writing: bool) -> Tensor:
    """What a function gives, without a graph; one that writes writes to a copy."""
    values = [t.detach() if isinstance(t, Tensor) else t for t in args]
    values = [values[0].clone(), *values[1:]] if is_writing else values
    with torch.no_grad():
        value: Tensor = func(*values, **kwargs)
    return value


def _given(rule: Callable[[Tensor], Sequence[Tensor]], value: Tensor, *inputs: Tensor) -> Tensor:
    output: Tensor = _Relevance.apply(rule, value, *inputs)
    return output


def _precise(tensor: Tensor) -> Tensor:
    """A tensor without its graph, in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
