"""Rules of relevance: how much of a layer's output each of its inputs is made of.

Every rule of a linear map `z_i = sum_j w_ij x_j + b_i` is a list of terms `(x', w')` and shares out relevance `R_i` by

    R_j = sum_k x'_kj sum_i w'_kij R_i / z'_i,   z'_i = sum_k sum_j w'_kij x'_kj + b'_i

Legend: x the input of a map, w its weights, b its bias, z its output, R relevance, of the output unless said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from contrex.explain.propagation.conservation import Ledger

TINY = 1e-9
"""Keeps denominators from zero where a rule has no epsilon."""

Kind = Literal["convolution", "dense", "normalisation", "pooling"]
Term = tuple[Tensor, Tensor | None]
"""An input and weights for it, `(x', w')`; the weights are None where the map has none of its own (pooling)."""


class NoRuleError(Exception):
    """Raised where a function of the network has no rule."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer that is linear in its input `x`, as a rule sees it: `z = function(x, weight) + bias`.

    Convolutions and dense layers come with the batch norm beside them folded in; one that stands alone is a map of its
    own, one weight for each channel. Pooling has no weights: they are positive and `function` knows them. The bias has
    the shape that is added. `name` is the module's that holds the weights, "" if none does.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    kind: Kind
    is_first: bool
    """Whether `x` is the images, normalised or not."""
    name: str = ""
    is_transposed: bool = False
    """Whether it is a transposed convolution, whose weights are [inputs, outputs of a group, ...]."""
    ledger: Ledger | None = None
    """Counts what biases keep, where that is asked."""

    def scaled(self, scale: Tensor, output: Tensor) -> Tensor | None:
        """The weights with a factor for each channel of the output, its axis 1; None where that is no axis of theirs,
        as of a dense layer of tokens."""
        assert self.weight is not None  # pooling has no channels of its own
        if self.kind == "dense":
            return self._scaled_along_axis(scale)
        if output.ndim != self.weight.ndim:  # one image without its axis
            return None
        ones = [1] * (self.weight.ndim - 2)
        if not self.is_transposed:
            return self.weight * scale.view(-1, 1, *ones)
        each = self.weight.shape[1]
        groups = len(scale) // each
        return self.weight * scale.view(groups, each).repeat_interleave(len(self.weight) // groups, 0).view(
            *self.weight.shape[:2], *ones
        )

    def _scaled_along_axis(self, scale: Tensor) -> Tensor | None:
        """The weights of a product of matrices, scaled along the axis that is the output's axis 1."""
        assert self.weight is not None
        # It goes by the equation, or by which side the weights are on. So each axis of that size is tried, on ones, of
        # which no sums cancel: in the right one the output grows as the weights do.
        marks, ones, x = torch.linspace(1, 2, len(scale)).to(scale), self.weight.new_ones(self.weight.shape), self.x
        x = x.new_ones(x.shape)
        output = self.function(x, ones)
        expected = output * marks.view(-1, *[1] * (output.ndim - 2))
        for axis, size in enumerate(self.weight.shape):
            shape = [1] * axis + [-1] + [1] * (self.weight.ndim - axis - 1)
            if size == len(scale) and torch.allclose(self.function(x, ones * marks.view(shape)), expected, rtol=1e-2):
                return self.weight * scale.view(shape)
        return None

    def share(self, terms: Sequence[Term], relevance: Tensor, *, bias: Tensor | None = None, epsilon: float) -> Tensor:
        """Relevance of the input: `relevance` in proportion to what each input adds to the sum of the terms."""
        # Autograd does the transposed map: with s_i = R_i / z_i held constant, d/dx_j sum_i z_i s_i = sum_i w_ij s_i,
        # and times x_j that is R_j. In half precision small denominators would be lost.
        with torch.enable_grad(), torch.autocast(relevance.device.type, enabled=False):
            inputs = [x.detach().requires_grad_() for x, _ in terms]
            outputs = [self.function(x, weight) for x, (_, weight) in zip(inputs, terms, strict=True)]
            total = sum(outputs[1:], outputs[0])
            z = total.detach() if bias is None else total.detach() + bias
            shares = ratio(relevance.to(total.dtype), z, epsilon)
            gradients = torch.autograd.grad(total, inputs, shares)
        if self.ledger is not None and bias is not None:
            self.ledger.add("biases", bias * shares)
        products = [x.detach() * gradient for x, gradient in zip(inputs, gradients, strict=True)]
        return sum(products[1:], products[0])

    def output(self) -> Tensor:
        """The output `z` of the layer, made again."""
        z = self.function(self.x, self.weight)
        return z if self.bias is None else z + self.bias

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
            # Looking at x waits for the device, and saves a convolution forwards and backwards behind a ReLU.
            if (of_x > 0 or bool((self.x < 0).any())) and (of_weight > 0 or self.weight is not None)
        ]


def part(values: Tensor, sign: int) -> Tensor:
    """The positive (`sign` 1) or the negative (-1) values, zeros elsewhere."""
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)


def ratio(relevance: Tensor, total: Tensor, epsilon: float) -> Tensor:
    """The relevance per unit of output, `R / (z + epsilon sign(z))`; 0 where z is 0 and so is epsilon."""
    if epsilon:
        return relevance / (total + epsilon * torch.where(total < 0, -1.0, 1.0))
    return torch.where(total == 0, 0.0, relevance / torch.where(total == 0, 1.0, total))


class Rules(ABC):
    """What a method does with relevance; activations, dropout and products with a constant pass it on as it is."""

    folds_batch_norm: ClassVar[bool] = True
    takes_attention: ClassVar[bool] = False
    """Whether it has rules for what is not linear: softmax, normalisation by data, products of matrices, quotients."""
    is_softmax_constant: bool = False
    """Whether the weights of attention are constants, so that they get no relevance (CP-LRP)."""
    takes_normalised_pixels: bool = False
    """Whether the relevance of normalised pixels is that of the images, whatever normalising has added."""
    ledger: Ledger | None = None
    """Counts what stays on the way, where that is asked."""

    def meet(self, layer: LinearMap) -> None:  # noqa: B027
        """Know a linear map of the pass, before any relevance is shared out."""

    @abstractmethod
    def linear(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        """Share the relevance of a linear map's output out, and return that of its input."""

    @abstractmethod
    def addends(self, addends: Sequence[Tensor], constant: Tensor | None, relevance: Tensor) -> Sequence[Tensor]:
        """Relevance of each addend of `z = sum_k addend_k + constant`, all of the same shape."""

    @abstractmethod
    def factors(self, are_gates: tuple[bool, bool]) -> tuple[float, float] | None:
        """Which share of a product's relevance each of two factors gets, cell by cell; None where it has no rule.

        A gate is what a sigmoid or a clamp has made, between 0 and a constant.
        """
