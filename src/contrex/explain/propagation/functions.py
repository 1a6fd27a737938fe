"""The rule of each torch function: how the relevance of what it gives is shared out among what it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contrex.explain.forward.in_place import tensors_in
from contrex.explain.propagation.call import Call, given, precise
from contrex.explain.propagation.formulas import bilinear_relevance, softmax_offset, softmax_relevance
from contrex.explain.propagation.linear_maps import NORMS, WEIGHTED, LinearMaps, Trace
from contrex.explain.propagation.names import Names
from contrex.explain.propagation.rules import TINY, NoRuleError, Rules
from contrex.explain.propagation.tracked import Mark, Tracked

_PASSING = {
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "prelu", "rrelu", "threshold", "elu", "celu"),
    *("selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardshrink", "sigmoid", "tanh", "softplus"),
    *("softsign", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}
"""Functions of each element alone, which hand on its relevance as it is."""
_IDENTITY = {"neg", "abs", "square", "pow", "sqrt", "erf", "softshrink", "logsigmoid", "rms_norm", "normalize"}
"""More of them, with AttnLRP's rules only; a vector over its norm is among them, as the norm is a constant."""
_SUMS = {"add": 1, "iadd": 1, "radd": 1, "sub": -1, "isub": -1, "subtract": -1}
"""Sums of two, and the sign of the second."""
_PRODUCTS = {"mul", "imul", "rmul", "multiply"}
_QUOTIENTS = {"div", "idiv", "truediv", "itruediv", "divide", "true_divide"}
_NORMALISING = {*_SUMS, *_PRODUCTS, *_QUOTIENTS, *NORMS, "batch_norm", "neg"}
"""What networks do with pixels before their first layer, with constants: they stay pixels, normalised ones."""
_AVERAGES = {
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("mean", "sum", "interpolate", "upsample", "fold"),
}
_OF_MATRICES = {"matmul", "rmatmul", "mm", "bmm", "mv", "dot", "einsum"}
_FACTORS = {"norm", "linalg_norm", "linalg_vector_norm", "var", "std", "rsqrt", "reciprocal"}
"""What vectors are divided by: no relevance goes there, so nothing else may be done with it."""
_OF_FACTORS = {*_PASSING, *_IDENTITY, *_SUMS, *_PRODUCTS, *_QUOTIENTS, *_OF_MATRICES, *_FACTORS, "mean", "sum"}
"""What may be done with a factor: it gives another one, or multiplies or divides other data."""


class FunctionRules:
    """Gives functions of one pass their rules, in the graph, and knows what they give.

    Rules live in the graph, so none may hold on to this object or to a tensor with a graph: it would never be freed.
    """

    def __init__(self, names: Names, rules: Rules, tracked: Tracked) -> None:
        self._rules, self._tracked = rules, tracked
        self._linear_maps = LinearMaps(names, rules, tracked)

    @property
    def trace(self) -> Trace:
        """What is needed of the pass once it is over."""
        return self._linear_maps.trace

    def apply(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_writing: bool
    ) -> Tensor | None:
        """Call a function, give its output the rule of its name, and return it; None where there is no rule."""
        data = [t for t in tensors_in((args, kwargs)) if self._tracked.is_data(t)]
        call = Call(func.__name__.strip("_"), func, args, kwargs, data, is_writing)
        mark = self._mark(call)
        if self._tracked.has_factor(*data) and (call.name not in _OF_FACTORS or is_writing):
            return None
        output = _factor(call) if mark == "factor" else self._ruled(call)
        if output is not None:
            self._tracked.add(output, mark=mark)
        return output

    def _mark(self, call: Call) -> Mark | None:
        """What is special about the output."""
        name, mark = call.name, self._tracked.mark(*call.data)
        is_norm = name in _FACTORS or (name == "pow" and _is_number(call.option(1, "exponent"), below_zero=True))
        is_constant = name == "softmax" and self._rules.is_softmax_constant
        if mark == "factor" or (self._rules.takes_attention and (is_norm or is_constant)):
            return "factor"
        if mark == "pixels" and name in _NORMALISING and len(call.data) == 1:
            return "pixels"
        scales = name in _PRODUCTS | _QUOTIENTS and _is_number(call.args[-1], below_zero=False)
        return "gate" if _is_gate(call) or (mark == "gate" and (scales or name == "dropout")) else None

    def _ruled(self, call: Call) -> Tensor | None:
        """The output of a call with its rule; None where there is no rule."""
        name, has_all, is_pair = call.name, self._rules.takes_attention, len(call.args) == 2 and not call.kwargs
        if name in _SUMS and is_pair:
            return None if self._tracked.has_factor(*call.data) else self._sum(call, _SUMS[name])
        if name in _PRODUCTS and is_pair:
            return self._product(call)
        if name in _OF_MATRICES:
            return self._of_matrices(call)
        if not self._tracked.is_data(call.args[0]) or self._tracked.has_factor(call.args[0]):
            return None
        if name in _QUOTIENTS and (has_all or len(call.data) == 1):
            # Of two data the first gets all: what divides is a constant (AttnLRP, Proposition 3.4).
            return _passing(call, call.args[0])
        return self._of_one(call, has_all=has_all) if len(call.data) == 1 else None

    def _of_one(self, call: Call, *, has_all: bool) -> Tensor | None:
        """The output of a function of one tensor of data, its first argument; None where there is no rule."""
        name = call.name
        if name in _PASSING or (name in _IDENTITY and has_all):
            return _passing(call, call.data[0])
        if name in _AVERAGES and (has_all or "bicubic" not in (*call.args, *call.kwargs.values())):
            return self._linear_maps.average(call)
        if name in WEIGHTED:
            return self._linear_maps.weighted(call)
        if name == "batch_norm":
            return self._linear_maps.batch_norm(call)
        if name in NORMS and has_all:
            return self._linear_maps.data_norm(call)
        return _softmax(call, self._rules) if name == "softmax" and has_all else None

    def _sum(self, call: Call, sign: int) -> Tensor:
        """Add or subtract: the rules say which share each addend has."""
        signed = list(zip(call.args, (1, sign), strict=True))
        data = [(t, s) for t, s in signed if self._tracked.is_data(t)]
        constants = [(t, s) for t, s in signed if not self._tracked.is_data(t)]
        # Detached, as the rule below lives in the graph: it would keep the graph, and the graph the rule, alive.
        rules, values = self._rules, [(t.detach(), s) for t, s in data]
        are_pixels = self._tracked.are_pixels(*[t for t, _ in data]) and len(data) == 1
        value = call.value()
        kind: dict[str, Any] = {"dtype": torch.promote_types(value.dtype, torch.float32), "device": value.device}
        constant = [s * torch.as_tensor(t, **kind).detach().expand(value.shape) for t, s in constants]

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            addends = [s * t.to(**kind).expand(relevance.shape) for t, s in values]
            if are_pixels and rules.takes_normalised_pixels:
                return [relevance.sum_to_size(values[0][0].shape)]
            shares = rules.addends(addends, constant[0] if constant else None, relevance.to(**kind))
            return [share.sum_to_size(t.shape) for share, (t, _) in zip(shares, values, strict=True)]

        return given(rule, value, *[t for t, _ in data])

    def _product(self, call: Call) -> Tensor | None:
        """Multiply cell by cell: data beside a constant or a factor take all, of two the rules say which share."""
        signals = [t for t in call.data if not self._tracked.has_factor(t)]
        if len(signals) == 1:
            return _passing(call, signals[0])
        first, second = (self._tracked.mark(t) == "gate" for t in signals)
        shares = self._rules.factors((first, second))
        if shares is None:
            return None
        parts = [(t, share) for t, share in zip(signals, shares, strict=True) if share]
        sized = [(t.shape, share) for t, share in parts]

        def rule(relevance: Tensor) -> Sequence[Tensor]:
            return [(share * relevance).sum_to_size(shape) for shape, share in sized]

        return given(rule, call.value(), *[t for t, _ in parts])

    def _of_matrices(self, call: Call) -> Tensor | None:
        """Multiply matrices, one of them or both data; an einsum of one tensor is a sum."""
        operands: Sequence[Any] = call.args[1:] if call.name == "einsum" else call.args
        if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
            operands = operands[0]
            call = replace(call, args=(call.args[0], *operands))
        if call.kwargs or call.is_writing:
            return None
        if len(operands) == 1:
            return self._linear_maps.average(call)
        places = [i for i, t in enumerate(operands) if self._tracked.is_data(t) and not self._tracked.has_factor(t)]
        if len(operands) != 2:
            return None
        if len(places) == 1:
            return self._linear_maps.of_matrices(call, operands, places[0])
        return _bilinear(call, operands[0], operands[1]) if self._rules.takes_attention else None


def _passing(call: Call, x: Tensor) -> Tensor:
    """Call a function of each element alone, or with a constant: relevance passes as it is."""
    shape = x.shape
    return given(lambda relevance: [relevance.sum_to_size(shape)], call.value(), x)


def _factor(call: Call) -> Tensor | None:
    """Call a function whose output gets no relevance; None where it writes."""
    return None if call.is_writing else given(_refuse, call.value(), *call.data)


def _refuse(relevance: Tensor) -> Sequence[Tensor]:
    raise NoRuleError("relevance reached what only multiplies or divides")


def _softmax(call: Call, rules: Rules) -> Tensor | None:
    """Take the softmax, with AttnLRP's rule; None where the axis is left to torch."""
    axis, value = call.option(1, "dim"), call.value()
    if axis is None:
        return None
    x, s, ledger = precise(call.args[0]), precise(value), rules.ledger

    def rule(relevance: Tensor) -> Sequence[Tensor]:
        if ledger is not None:
            ledger.add("softmax", softmax_offset(x, s, relevance, axis))
        return [softmax_relevance(x, s, relevance, axis)]

    return given(rule, value, call.data[0])


def _bilinear(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Multiply two matrices of data."""
    func, begin = call.function, call.args[:1] if call.name == "einsum" else ()
    x, y = precise(a), precise(b)

    def rule(relevance: Tensor) -> Sequence[Tensor]:
        return bilinear_relevance(lambda x, y: func(*begin, x, y), x, y, relevance, TINY)

    return given(rule, call.value(), a, b)


def _is_gate(call: Call) -> bool:
    """Whether what a call gives is between 0 and a constant."""
    if call.name in ("clamp", "hardtanh"):
        is_tanh = call.name == "hardtanh"
        low = call.option(1, "min_val" if is_tanh else "min", -1.0 if is_tanh else None)
        high = call.option(2, "max_val" if is_tanh else "max", 1.0 if is_tanh else None)
        return _is_number(low, below_zero=False) and high is not None
    return call.name in ("sigmoid", "hardsigmoid", "relu6", "softmax")


def _is_number(value: object, *, below_zero: bool) -> bool:
    return isinstance(value, (int, float)) and (value < 0) == below_zero
