"""Relevance propagation: a backward pass that shares relevance out by rules instead of differentiating.

During the forward pass every torch function that touches the data is intercepted - in modules or not, `x + y` and
`torch.cat` alike - and gets a rule as its backward function, so that "gradient" means relevance everywhere. Branches
add up; views, concatenations and maximum pooling route relevance as they route gradients. A function without a rule is
an error, never a wrong map. The model is not changed: batch norm is folded into the layer beside it in the graph only.

Every rule of a linear map `z_i = sum_j w_ij x_j + b_i` is a list of terms `(x', w')` and shares out relevance `R_i` by

    R_j = sum_k x'_kj sum_i w'_kij R_i / z'_i,   z'_i = sum_k sum_j w'_kij x'_kj + b'_i

Legend: x the input of a map, w its weights, b its bias, z its output, R relevance, of the output unless said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.overrides import resolve_name

from contrex.errors import LayerError
from contrex.explain import capture
from contrex.explain.capture import Pass
from contrex.explain.explainer import LayerExplainer
from contrex.models.layers import Layer, Reshape
from contrex.ops.scores import Question

Kind = Literal["convolution", "dense", "normalisation", "pooling"]
Term = tuple[Tensor, Tensor | None]
"""An input and weights for it, `(x', w')`; the weights are None where the map has none of its own (pooling)."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer that is linear in its input `x`, as a rule sees it: `z = function(x, weight) + bias`.

    Convolutions and dense layers come with the batch norm beside them folded in; one that stands alone is a map of its
    own, one weight for each channel. Pooling has no weights: they are positive and `function` knows them. `name` is the
    module's that holds the weights, "" if none does.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    kind: Kind
    is_first: bool
    """Whether `x` is the images themselves."""
    name: str = ""

    def share(self, terms: Sequence[Term], relevance: Tensor, *, bias: Tensor | None = None, epsilon: float) -> Tensor:
        """Relevance of the input: `relevance` in proportion to what each input adds to the sum of the terms."""
        with torch.enable_grad(), torch.autocast(relevance.device.type, enabled=False):
            inputs = [x.detach().requires_grad_() for x, _ in terms]
            outputs = [self.function(x, weight) for x, (_, weight) in zip(inputs, terms, strict=True)]
            total = sum(outputs[1:], outputs[0])
            shares = ratio(relevance.to(total.dtype), self._with(bias, total.detach()), epsilon)
            gradients = torch.autograd.grad(total, inputs, shares)
        products = [x.detach() * gradient for x, gradient in zip(inputs, gradients, strict=True)]
        return sum(products[1:], products[0])

    def output(self) -> Tensor:
        """`z`."""
        return self._with(self.bias, self.function(self.x, self.weight))

    def weights(self, sign: int) -> Tensor | None:
        """The positive (`sign` 1) or negative (-1) weights, zeros elsewhere; None for pooling, which has none."""
        return None if self.weight is None else part(self.weight, sign)

    def exciting(self) -> list[Term]:
        """The terms of all positive contributions `w_ij x_j > 0`: `(x+, w+)` and, where there are any, `(x-, w-)`."""
        return self._terms((1, 1), (-1, -1))

    def inhibiting(self) -> list[Term]:
        """The terms of all negative contributions: `(x+, w-)` and `(x-, w+)`."""
        return self._terms((1, -1), (-1, 1))

    def _terms(self, *signs: tuple[int, int]) -> list[Term]:
        """Terms by the signs of the input and of the weights, without those that are certainly empty."""
        return [
            (part(self.x, of_x), self.weights(of_weight))
            for of_x, of_weight in signs
            if (of_x > 0 or bool((self.x < 0).any())) and (of_weight > 0 or self.weight is not None)
        ]

    def _with(self, bias: Tensor | None, total: Tensor) -> Tensor:
        if bias is None:
            return total
        return total + (bias if self.kind == "dense" else bias.view(-1, *[1] * (total.ndim - 2)))


def part(values: Tensor, sign: int) -> Tensor:
    """The positive (`sign` 1) or the negative (-1) values, zeros elsewhere."""
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)


def ratio(relevance: Tensor, total: Tensor, epsilon: float) -> Tensor:
    """`R / (z + epsilon sign(z))`; 0 where z is 0 and so is epsilon."""
    if epsilon:
        return relevance / (total + epsilon * torch.where(total < 0, -1.0, 1.0))
    return torch.where(total == 0, 0.0, relevance / torch.where(total == 0, 1.0, total))


class Rules(ABC):
    """What a method does with relevance; activations, dropout and products with a constant pass it on as it is."""

    folds_batch_norm: ClassVar[bool] = True

    @abstractmethod
    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        """Relevance of the input of a linear map."""

    @abstractmethod
    def addends(self, addends: Sequence[Tensor], constant: Tensor | None, relevance: Tensor) -> Sequence[Tensor]:
        """Relevance of each addend of `z = sum_k addend_k + constant`, all of the same shape."""


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


@dataclass(frozen=True, eq=False, kw_only=True)
class RelevancePass(Pass):
    """A pass whose backward pass propagates relevance, and the output of a layer `watched` beside those explained."""

    trace: Trace
    watched: Tensor | None = None


class RelevanceExplainer(LayerExplainer):
    """Methods that propagate relevance from the logits to a layer or to the images.

    The map is the relevance summed over channels. `layer` is that of `LayerExplainer`, or `"input"`, the images.
    """

    is_differentiable = False

    def __init__(self, model: nn.Module, layer: Layer = None, *, reshape: Reshape | None = None) -> None:
        self._is_at_input = isinstance(layer, str) and layer == "input"
        super().__init__(model, None if self._is_at_input else layer, reshape=reshape)

    @property
    def layer(self) -> str | None:
        """The name of the explained layer, `"input"` for the images; None until the first call has found it."""
        return "input" if self._is_at_input else super().layer

    @abstractmethod
    def _rules(self) -> Rules:
        """The rules of this method."""

    @abstractmethod
    def _start(self, run: Pass, row: Tensor) -> Tensor:
        """The relevance `[N,K]` of the logits for one row `[N,K]` of the question's cotangents."""

    def _forward(self, images: Tensor, *, differentiable: bool) -> RelevancePass:
        return self._run(images, [] if self._is_at_input else [self._found_layer(images)], graph="head")

    def _run(
        self, images: Tensor, layers: Sequence[nn.Module], *, graph: str, watched: nn.Module | None = None
    ) -> RelevancePass:
        seen: list[Tensor] = []

        def see(module: nn.Module, output: object) -> None:
            if isinstance(output, Tensor):
                seen.append(output)

        beside = [] if watched is None else [watched]
        propagation = _Propagation(self.model, self._rules(), is_at_input=not layers)
        try:
            with capture.watched(beside, see), capture.intercepted(propagation):
                run = capture.forward(self.model, images.detach(), layers, graph=graph, reshape=self._reshape)
        except _NoRuleError as error:
            raise LayerError(
                f"{type(self).__name__} cannot explain {type(self.model).__name__}: {error}, in "
                f"{_innermost_module(error, self.model)}. Explain a `layer` behind it, or use a gradient method."
            ) from None
        return RelevancePass(
            run.images, run.logits, run.features, trace=propagation.trace, watched=seen[0] if len(seen) == 1 else None
        )

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        maps = []
        for row in question.cotangents(run.logits).unbind(1):
            relevance = self._relevance(run, row)
            maps.append(features.maps(relevance).to(row.dtype).sum(1))
        return torch.stack(maps, 1)

    def _relevance(self, run: Pass, row: Tensor) -> Tensor:
        """The relevance of the explained layer's output for one row `[N,K]` of cotangents."""
        return propagated(run.logits, run.features[0].output, self._start(run, row))


def propagated(output: Tensor, source: Tensor, relevance: Tensor) -> Tensor:
    """The relevance of `source` when `output` has `relevance`."""
    (found,) = torch.autograd.grad(output, source, relevance, retain_graph=True, allow_unused=True)
    if found is None:
        raise LayerError(
            "the classifier does not depend on `layer`: choose another one, or a `contrast_layer` behind it."
        )
    return found


# --- the forward pass -----------------------------------------------------------------------------------------------

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
}
"""Functions whose outputs are some of their inputs: relevance goes the way of the gradient."""
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


class _NoRuleError(Exception):
    """A function of the network has no rule."""


class _Propagation:
    """Gives every torch function of one forward pass its rule.

    Rules live in the graph, so none may hold on to this object or to a tensor with a graph: it would never be freed.
    """

    def __init__(self, model: nn.Module, rules: Rules, *, is_at_input: bool) -> None:
        self.trace = Trace(Classifier())
        self._rules, self._is_at_input = rules, is_at_input
        self._names = {id(p): name.removesuffix("weight").rstrip(".") for name, p in model.named_parameters()}
        # All are kept until the pass is over, so that no other tensor takes over an id.
        self._data: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        self._pixels: set[int] = set()
        self._replaced: dict[int, Tensor] = {}
        self._layers: dict[int, tuple[LinearMap, Tensor]] = {}
        self._normalised: dict[int, _Normalised] = {}

    def __call__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = self._current(args), self._current(kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        name = func.__name__.strip("_")
        data = [t for t in _tensors((args, kwargs)) if self._is_data(t)]
        if not data or not torch.is_grad_enabled():
            return self._without_data(name, func(*args, **kwargs))
        if name in _ROUTING:
            return self._routed(func(*args, **kwargs), data)
        output = self._ruled(name, func, args, kwargs, num_data=len(data))
        if output is not None:
            self._data[id(output)] = output
            return output
        other = func(*args, **kwargs)
        if any(t.requires_grad for t in _tensors(other)):
            raise _NoRuleError(f"no rule says how relevance passes through {resolve_name(func) or name}")
        return other

    def _without_data(self, name: str, outputs: Any) -> Any:
        """A function of parameters only, or before the explained layer; `requires_grad_` marks where data begins."""
        for tensor in _tensors(outputs):
            if tensor.requires_grad and name == "requires_grad":
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if self._is_at_input else set()
            elif tensor.requires_grad:
                self._constants[id(tensor)] = tensor
        return outputs

    def _routed(self, outputs: Any, data: Sequence[Tensor]) -> Any:
        are_pixels = all(id(t) in self._pixels for t in data)
        for tensor in _tensors(outputs):
            if tensor.requires_grad:
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if are_pixels else set()
        return outputs

    def _ruled(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, num_data: int
    ) -> Tensor | None:
        """What the function gives, with its rule; None where there is none for it."""
        if name in _SUMS and len(args) == 2 and not kwargs:
            return self._sum(func, args, _SUMS[name])
        if num_data > 1:
            return None
        if name in _PRODUCTS and len(args) == 2 and not kwargs:
            first, second = args
            return self._passing(func, args if self._is_data(first) else (second, first), {})
        if not self._is_data(args[0]):
            return None
        if name in _PASSING or (name in _QUOTIENTS and not kwargs):
            return self._passing(func, args, kwargs)
        if name in _AVERAGES:
            return self._average(func, *args, **kwargs)
        if name in _WEIGHTED:
            return self._weighted(func, _WEIGHTED[name], *args, **kwargs)
        if name == "batch_norm":
            return self._batch_norm(func, *args, **kwargs)
        return None

    def _passing(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Relevance passes as it is; the value is computed on a copy, which `func` may change in place."""
        x, copy = args[0], args[0].detach().clone()
        with torch.no_grad():
            value = func(copy, *args[1:], **kwargs)
        shape = x.shape
        output = _given(lambda relevance: [relevance.sum_to_size(shape)], value, x)
        if value is copy:
            self._replaced[id(x)] = output
        return output

    def _sum(self, func: Callable[..., Any], args: tuple[Any, ...], sign: int) -> Tensor:
        data = [(t, s) for t, s in zip(args, (1, sign), strict=True) if self._is_data(t)]
        constants = [(t, s) for t, s in zip(args, (1, sign), strict=True) if not self._is_data(t)]
        copies = [t.detach().clone() if isinstance(t, Tensor) else t for t in args]
        rules, values = self._rules, [(t.detach(), s) for t, s in data]
        with torch.no_grad():
            value = func(*copies)
        kind: dict[str, Any] = {"dtype": torch.promote_types(value.dtype, torch.float32), "device": value.device}
        constant = [s * torch.as_tensor(t, **kind).detach().expand(value.shape) for t, s in constants]

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            addends = [s * t.to(**kind).expand(relevance.shape) for t, s in values]
            shares = rules.addends(addends, constant[0] if constant else None, relevance.to(**kind))
            return [share.sum_to_size(t.shape) for share, (t, _) in zip(shares, values, strict=True)]

        output = _given(rule, value, *[t for t, _ in data])
        if value is copies[0]:
            self._replaced[id(args[0])] = output
        return output

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
            raise _NoRuleError(f"a tensor comes from a function that cannot be intercepted ({made_by})")
        return True

    def _current(self, value: Any) -> Any:
        """The arguments with tensors that were changed in place replaced by what they became."""
        if isinstance(value, Tensor):
            return self._replaced.get(id(value), value)
        if type(value) in (tuple, list):
            return type(value)(self._current(item) for item in value)
        return {key: self._current(item) for key, item in value.items()} if type(value) is dict else value


def _given(rule: Callable[[Tensor], Sequence[Tensor]], value: Tensor, *inputs: Tensor) -> Tensor:
    output: Tensor = _Relevance.apply(rule, value, *inputs)
    return output


def _precise(tensor: Tensor) -> Tensor:
    """Without a graph, in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _tensors(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _innermost_module(error: BaseException, model: nn.Module) -> str:
    """The module whose forward pass raised: its name and type."""
    found, trace = model, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        found = owner if isinstance(owner, nn.Module) else found
        trace = trace.tb_next
    name = next((name for name, module in model.named_modules() if module is found), "")
    return f"`{name}` ({type(found).__name__})" if name else type(found).__name__
