"""A forward pass whose graph propagates relevance: every torch function gets a rule as its backward function.

Functions are intercepted, in modules or not, `x + y` and `torch.cat` alike, so that "gradient" means relevance
everywhere. Branches add up; views, concatenations and maximum pooling route relevance as they route gradients. A
function without a rule is an error, never a wrong map. The model is not changed: batch norm is folded into the layer
beside it in the graph only.

Nothing that depends on the explained layer is ever written to, as rules and the graph hold on to it. What a function
changes in place is made anew, and from then on stands for the changed tensor and all that share its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import resolve_name

from contrex.explain.forward.aliases import Aliases
from contrex.explain.forward.in_place import RESHAPING, tensors_in, written
from contrex.explain.propagation.rules import Kind, LinearMap, NoRuleError, Rules


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


_ROUTING = {
    *(
        "cat",
        "concat",
        "concatenate",
        "stack",
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "getitem",
        "select",
        "narrow",
    ),
    *(
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "expand",
        "pad",
        "get",
    ),
    *("permute", "transpose", "swapaxes", "movedim", "roll", "flip", "channel_shuffle", "native_channel_shuffle"),
    *("pixel_shuffle", "pixel_unshuffle", "clone", "contiguous", "to", "type", "type_as", "float", "double"),
    *("max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "amax", "requires_grad"),
    *("setitem", "copy", "fill", "zero", "masked_fill"),
}
"""Functions whose outputs are some of their inputs, or constants: relevance goes the way of the gradient."""
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
    """A value whose backward pass is `rule`: from its relevance to that of each of `inputs`."""

    @staticmethod
    def forward(ctx: Any, rule: Callable[[Tensor], Sequence[Tensor]], value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.dtypes = rule, [x.dtype for x in inputs]
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        shares = ctx.rule(relevance[0])
        return None, None, *[share.to(dtype) for share, dtype in zip(shares, ctx.dtypes, strict=True)]


@dataclass(frozen=True, eq=False)
class _Normalised:
    """`x * scale + shift` per channel, which batch norm has made of `x`."""

    x: Tensor
    scale: Tensor
    shift: Tensor


class Propagation:
    """Gives every torch function of one forward pass its rule.

    Rules live in the graph, so none may hold on to this object or to a tensor with a graph: it would never be freed.
    """

    def __init__(self, model: nn.Module, rules: Rules, *, is_at_input: bool) -> None:
        self.trace = Trace(Classifier())
        self._rules, self._is_at_input = rules, is_at_input
        self._names = {id(p): name.removesuffix("weight").rstrip(".") for name, p in model.named_parameters()}
        self._aliases = Aliases()
        # All are kept until the pass is over, so that no other tensor takes over an id.
        self._data: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        self._pixels: set[int] = set()
        self._layers: dict[int, tuple[LinearMap, Tensor]] = {}
        self._normalised: dict[int, _Normalised] = {}

    def __call__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = self._aliases.now(args), self._aliases.now(kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        target = written(func, args, kwargs)
        data = [t for t in tensors_in((args, kwargs)) if self._is_data(t)]
        self._check_writing(func, target, kwargs.get("out"))
        if not data or not torch.is_grad_enabled():
            outputs = self._without_data(func, args, kwargs)
        elif target is not None:
            outputs = self._changed(func, target, args, kwargs, data)
        else:
            outputs = self._outcome(func, args, kwargs, data, is_writing=False)
        for tensor in tensors_in(outputs) if self._data else ():
            self._aliases.add(tensor)
        return outputs

    def current(self, value: Any) -> Any:
        """What a module gave, after the changes in place that followed."""
        return self._aliases.now(value)

    def check(self) -> None:
        """Raise a `NoRuleError` if something was changed in place unseen; call it after the pass."""
        self._aliases.check(lambda tensor: id(tensor) in self._data)

    def _outcome(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        data: Sequence[Tensor],
        *,
        is_writing: bool,
    ) -> Any:
        """What the function gives, with its rule; of one that writes, what it makes of its first argument."""
        name = func.__name__.strip("_")
        if name in _ROUTING:
            changed = (args[0].clone(), *args[1:]) if is_writing else args
            outputs = func(*changed, **kwargs)
            return self._routed(changed[0] if is_writing else outputs, data)
        output = self._ruled(name, func, args, kwargs, num_data=len(data), is_writing=is_writing)
        if output is not None:
            self._data[id(output)] = output
            return output
        other = None if is_writing else func(*args, **kwargs)
        if is_writing or any(t.requires_grad for t in tensors_in(other)):
            raise NoRuleError(f"no rule says how relevance passes through {resolve_name(func) or name}")
        return other

    def _changed(
        self,
        func: Callable[..., Any],
        target: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        data: Sequence[Tensor],
    ) -> Tensor:
        """What stands for `target` after a function has changed it."""
        if func.__name__ in RESHAPING:
            view: Tensor = self._routed(getattr(target, func.__name__[:-1])(*args[1:], **kwargs), data)
            self._aliases.reshape(target, view)
            return view
        value = self._outcome(func, args, kwargs, data, is_writing=True)
        are_pixels = all(id(t) in self._pixels for t in (target, value))
        for tensor in self._aliases.replace(target, value):
            if tensor.requires_grad:
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if are_pixels else set()
        found: Tensor = self._aliases.now(target)
        return found

    def _check_writing(self, func: Callable[..., Any], target: Tensor | None, out: object) -> None:
        """Data must not change unless the graph sees it: neither `out=` nor a write beside the graph has a rule."""
        is_seen = target is not None and self._is_data(target) and torch.is_grad_enabled()
        for tensor in tensors_in((None if is_seen else target, out)):
            if any(self._is_data(alias) for alias in self._aliases.of(tensor)):
                name = resolve_name(func) or func.__name__
                raise NoRuleError(f"{name} changes a tensor beside its graph (by out=, detach(), .data or no_grad)")

    def _without_data(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of parameters only, or before the explained layer; `requires_grad_` marks where data begins."""
        outputs, name = func(*args, **kwargs), func.__name__.strip("_")
        for tensor in tensors_in(outputs):
            if tensor.requires_grad and name == "requires_grad":
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if self._is_at_input else set()
            elif tensor.requires_grad:
                self._constants[id(tensor)] = tensor
        return outputs

    def _routed(self, outputs: Any, data: Sequence[Tensor]) -> Any:
        are_pixels = all(id(t) in self._pixels for t in data)
        for tensor in tensors_in(outputs):
            if tensor.requires_grad:
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if are_pixels else set()
        return outputs

    def _ruled(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        num_data: int,
        is_writing: bool,
    ) -> Tensor | None:
        """What the function gives, with its rule; None where there is none for it."""
        if name in _SUMS and len(args) == 2 and not kwargs:
            return self._sum(func, args, _SUMS[name], is_writing=is_writing)
        if num_data > 1:
            return None
        if name in _PRODUCTS and len(args) == 2 and not kwargs:
            return self._passing(func, args, {}, is_writing=is_writing)
        if not self._is_data(args[0]):
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
        """Relevance passes as it is."""
        (x,) = [t for t in args if self._is_data(t)]
        shape = x.shape
        value = _value(func, args, kwargs, is_writing=is_writing)
        return _given(lambda relevance: [relevance.sum_to_size(shape)], value, x)

    def _sum(self, func: Callable[..., Any], args: tuple[Any, ...], sign: int, *, is_writing: bool) -> Tensor:
        data = [(t, s) for t, s in zip(args, (1, sign), strict=True) if self._is_data(t)]
        constants = [(t, s) for t, s in zip(args, (1, sign), strict=True) if not self._is_data(t)]
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
        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            averaged: Tensor = func(x, *options, **keywords)
            return averaged

        layer = LinearMap(function, _precise(x), None, None, "pooling", id(x) in self._pixels)
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
        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            mapped: Tensor = func(x, weight, None, *options, **keywords)
            return mapped

        with torch.no_grad():
            value = func(x.detach(), weight, bias, *options, **keywords)
        w, b = _precise(weight), None if bias is None else _precise(bias)
        normalised = self._normalised.get(id(x)) if kind == "dense" and x.ndim == 2 else None
        source = x
        if normalised is not None:
            source, shift = normalised.x, w @ normalised.shift
            w, b = w * normalised.scale, shift if b is None else b + shift
        name, is_first = self._names.get(id(weight), ""), id(source) in self._pixels
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
        """Folded into the layer before it, or kept for the dense layer behind it and else a layer of its own."""
        if training or mean is None or variance is None:
            return None
        with torch.no_grad():
            value = func(x.detach(), mean, variance, weight, bias, training, momentum, eps)
            scale = (1.0 if weight is None else _precise(weight)) / (_precise(variance) + eps).sqrt()
            shift = (0.0 if bias is None else _precise(bias)) - _precise(mean) * scale
        if self._rules.folds_batch_norm and id(x) in self._layers:
            layer, source = self._layers[id(x)]
            assert layer.weight is not None  # pooling is not among the layers
            weights = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
            shift = shift if layer.bias is None else shift + layer.bias * scale
            return self._shared(replace(layer, weight=weights, bias=shift), value, source)

        def function(x: Tensor, weight: Tensor | None) -> Tensor:
            assert weight is not None
            return x * weight.view(-1, *[1] * (x.ndim - 2))

        name, is_first = "" if weight is None else self._names.get(id(weight), ""), id(x) in self._pixels
        alone = LinearMap(function, _precise(x), scale, shift, "normalisation", is_first, name)
        output = self._shared(alone, value, x)
        if self._rules.folds_batch_norm:
            self._normalised[id(output)] = _Normalised(x, scale, shift)
        return output

    def _shared(self, layer: LinearMap, value: Tensor, source: Tensor) -> Tensor:
        rules, classifier = self._rules, self.trace.classifier

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            if classifier.is_flipped and classifier.layer is layer and layer.weight is not None:
                return [rules.linear(replace(layer, weight=-layer.weight), relevance)]
            return [rules.linear(layer, relevance)]

        output = _given(rule, value, source)
        if layer.kind in ("convolution", "dense"):
            self._layers[id(output)] = layer, source
            self.trace.classifier.layer, self.trace.classifier_input = layer, source
        return output

    def _is_data(self, value: object) -> bool:
        """Whether a tensor depends on the explained layer."""
        if not isinstance(value, Tensor) or not value.requires_grad or id(value) in self._constants or value.is_leaf:
            return id(value) in self._data
        if id(value) not in self._data:
            made_by = type(value.grad_fn).__name__
            raise NoRuleError(f"a tensor comes from a function that cannot be intercepted ({made_by})")
        return True


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
    """Without a graph, in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def innermost_module(error: BaseException, model: nn.Module) -> str:
    """The module whose forward pass raised: its name and type."""
    found, trace = model, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        found = owner if isinstance(owner, nn.Module) else found
        trace = trace.tb_next
    name = next((name for name, module in model.named_modules() if module is found), "")
    return f"`{name}` ({type(found).__name__})" if name else type(found).__name__
