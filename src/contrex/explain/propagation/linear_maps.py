"""Functions that are linear in the data: layers with weights, pooling, resizing, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import Node

from contrex.explain.propagation.call import Call, given, precise
from contrex.explain.propagation.formulas import centred, normalising_scale
from contrex.explain.propagation.names import Names
from contrex.explain.propagation.rules import Kind, LinearMap, Rules
from contrex.explain.propagation.tracked import Tracked

WEIGHTED: dict[str, Kind] = {
    "linear": "dense",
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "convolution"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "convolution"),
}
NORMS = ("layer_norm", "group_norm", "instance_norm")
WITH_WEIGHTS: tuple[Kind, ...] = ("convolution", "dense")


@dataclass(eq=False)
class Classifier:
    """The layers whose weights count with their sign flipped while they are `flipped`."""

    flipped: Sequence[LinearMap] = ()


@dataclass(frozen=True, eq=False)
class Mapped:
    """A linear map of a pass, with its input in the graph, and where in it its rule is."""

    layer: LinearMap
    source: Tensor
    node: Node | None


@dataclass(frozen=True, eq=False)
class Trace:
    """What propagation needs of a forward pass once it is over."""

    classifier: Classifier = field(default_factory=Classifier)
    maps: list[Mapped] = field(default_factory=list)
    """All linear maps, in the order in which they ran."""


@dataclass(frozen=True, eq=False)
class _Normalised:
    """What batch norm has made of `x`: `x * scale + shift` per channel."""

    x: Tensor
    scale: Tensor
    shift: Tensor


class LinearMaps:
    """Gives functions that are linear in the data their rules, in the graph.

    Rules live in the graph, so none may hold on to this object or to a tensor with a graph: it would never be freed.
    """

    def __init__(self, names: Names, rules: Rules, tracked: Tracked) -> None:
        self.trace = Trace()
        self._names, self._rules, self._tracked = names, rules, tracked
        # By id, as tensors compare by their numbers. Outputs are kept by `tracked` until the pass is over, so no id is
        # taken over.
        self._layers: dict[int, tuple[LinearMap, Tensor]] = {}
        """What gave an output: the layer with weights, and its input."""
        self._normalised: dict[int, _Normalised] = {}
        """What batch norm has made an output of."""

    def average(self, call: Call) -> Tensor:
        """Average, add up or resize: a linear map without weights of its own."""
        (x,) = call.data
        place = next(i for i, t in enumerate(call.args) if t is x)
        # Not the call itself, which holds tensors with a graph.
        func, before, behind, keywords = call.function, call.args[:place], call.args[place + 1 :], call.kwargs

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            averaged: Tensor = func(*before, x, *behind, **keywords)
            return averaged

        return self._shared(self._map(function, x, None, None, "pooling"), call.value(), x)

    def weighted(self, call: Call) -> Tensor:
        """Apply a convolution or a dense layer, with the batch norm right before it where one was kept for it."""
        (x,), func, options, kind = call.data, call.function, call.args[3:], WEIGHTED[call.name]
        weight, bias = call.option(1, "weight"), call.option(2, "bias")
        keywords = {name: value for name, value in call.kwargs.items() if name not in ("weight", "bias")}

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            mapped: Tensor = func(x, weight, None, *options, **keywords)
            return mapped

        w, b = precise(weight), None if bias is None else precise(bias)
        if b is not None and kind == "convolution":
            b = b.view(-1, *[1] * (w.ndim - 2))
        # w (scale x + shift) + b = (w scale) x + (w shift + b). Only of vectors: in tokens [N,T,D] batch norm's
        # channels are not the axis that a dense layer mixes.
        normalised = self._normalised.get(id(x)) if kind == "dense" and x.ndim == 2 else None
        source = x
        if normalised is not None:
            source, shift = normalised.x, w @ normalised.shift
            w, b = w * normalised.scale, shift if b is None else b + shift
        layer = self._map(function, source, w, b, kind, weight)
        layer = replace(layer, is_transposed="transpose" in call.name)
        return self._shared(layer, call.value(), source)

    def of_matrices(self, call: Call, operands: Sequence[Tensor], place: int) -> Tensor:
        """Multiply data, operand number `place`, with a constant: a dense layer, or attention that is constant."""
        x, other = operands[place], operands[1 - place]
        func, begin = call.function, call.args[:1] if call.name == "einsum" else ()

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            product: Tensor = func(*begin, *((x, weight) if place == 0 else (weight, x)))
            return product

        kind: Kind = "pooling" if self._tracked.has_factor(other) else "dense"
        return self._shared(self._map(function, x, precise(other), None, kind, other), call.value(), x)

    def batch_norm(self, call: Call) -> Tensor | None:
        """Normalise; the rule is folded into the layer before it, or kept for the dense layer behind it, and else it is
        that of a layer of its own; None where it has no running statistics."""
        (x,), mean, variance = call.data, call.option(1, "running_mean"), call.option(2, "running_var")
        weight, bias, eps = call.option(3, "weight"), call.option(4, "bias"), call.option(7, "eps", 1e-5)
        if call.option(5, "training", False) or mean is None or variance is None:
            return None
        value = call.value()
        with torch.no_grad():
            scale = (1.0 if weight is None else precise(weight)) / (precise(variance) + eps).sqrt()
            shift = (0.0 if bias is None else precise(bias)) - precise(mean) * scale
        spread = (-1, *[1] * (x.ndim - 2))
        if self._rules.folds_batch_norm and id(x) in self._layers:
            # scale (w x + b) + shift = (scale w) x + (scale b + shift): one map, so nothing is shared out to batch
            # norm's shift alone.
            layer, source = self._layers[id(x)]
            folded = layer.scaled(scale, x)
            if folded is not None:
                bias = (shift if layer.bias is None else shift + layer.bias.flatten() * scale).view(spread)
                return self._shared(replace(layer, weight=folded, bias=bias), value, source)

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            assert weight is not None
            return x * weight.view(spread)

        layer = self._map(function, x, scale, shift.view(spread), "normalisation", weight)
        output = self._shared(layer, value, x)
        if self._rules.folds_batch_norm:
            self._normalised[id(output)] = _Normalised(x, scale, shift)
        return output

    def data_norm(self, call: Call) -> Tensor | None:
        """Normalise by the mean and deviation of the data (layer, group and instance norm): centring and scaling are a
        linear map, as the deviation is a constant (AttnLRP, Proposition 3.4)."""
        (x,), is_instance = call.data, call.name == "instance_norm"
        first = 3 if is_instance else 2
        weight, bias = call.option(first, "weight"), call.option(first + 1, "bias")
        if is_instance and not call.option(5, "use_input_stats", True):
            return None
        if call.name == "layer_norm":
            num_axes = len(call.option(1, "normalized_shape"))
            groups, spread = (*x.shape[: x.ndim - num_axes], -1), tuple(x.shape[x.ndim - num_axes :])
            spread = (*[1] * (x.ndim - num_axes), *spread)
        else:
            num_groups = x.shape[1] if is_instance else call.option(1, "num_groups")
            groups, spread = (len(x), num_groups, -1), (1, x.shape[1], *[1] * (x.ndim - 2))
        eps = call.option(7 if is_instance else 4, "eps", 1e-5)

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            assert weight is not None
            return centred(x, groups) * weight

        scale = normalising_scale(precise(x), groups, eps)
        scale = scale if weight is None else scale * precise(weight).view(spread)
        shift = None if bias is None else precise(bias).view(spread)
        return self._shared(self._map(function, x, scale, shift, "normalisation", weight), call.value(), x)

    def _map(
        self,
        function: Callable[[Tensor, Tensor | None], Tensor],
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        kind: Kind,
        parameter: Tensor | None = None,
    ) -> LinearMap:
        """A linear map of data x, whose layer is told by its `parameter`."""
        is_first, name = self._tracked.are_pixels(x), self._names.of(parameter)
        return LinearMap(function, precise(x), weight, bias, kind, is_first, name, ledger=self._rules.ledger)

    def _shared(self, layer: LinearMap, value: Tensor, source: Tensor) -> Tensor:
        """Give `value` the rule of a linear map of `source`."""
        rules, classifier = self._rules, self.trace.classifier

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            if layer in classifier.flipped and layer.weight is not None:
                return [rules.linear(replace(layer, weight=-layer.weight), relevance)]
            return [rules.linear(layer, relevance)]

        output = given(rule, value, source)
        rules.meet(layer)
        self.trace.maps.append(Mapped(layer, source, output.grad_fn))
        if layer.kind in WITH_WEIGHTS:
            self._layers[id(output)] = layer, source
        return output
