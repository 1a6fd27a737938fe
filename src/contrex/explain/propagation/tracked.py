"""Which tensors of a pass depend on the explained layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from contrex.explain.forward.in_place import tensors_in
from contrex.explain.propagation.rules import NoRuleError


class Tracked:
    """The tensors of one pass that relevance may reach: *data* depends on the explained layer, a constant does not.

    At the input (`is_at_input`) data are *pixels* as long as functions only move them.
    """

    def __init__(self, *, is_at_input: bool) -> None:
        self._is_at_input = is_at_input
        # By id, as tensors compare by their numbers. All are kept until the pass is over, so that no other tensor takes
        # over an id; of the pixels, which are among the data, the ids are enough.
        self._data: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        self._pixels: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._data)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor is data that was seen."""
        return id(tensor) in self._data

    def is_data(self, value: object) -> bool:
        """Whether a tensor depends on the explained layer.

        Raises:
            NoRuleError: it comes from a function that was not seen.
        """
        if not isinstance(value, Tensor) or not value.requires_grad or id(value) in self._constants or value.is_leaf:
            return id(value) in self._data
        if id(value) not in self._data:
            made_by = type(value.grad_fn).__name__
            raise NoRuleError(f"a tensor comes from a function that cannot be intercepted ({made_by})")
        return True

    def are_pixels(self, *tensors: Tensor) -> bool:
        """Whether tensors are the images, or parts of them."""
        return all(id(tensor) in self._pixels for tensor in tensors)

    def add(self, outputs: Any, *, are_pixels: bool = False) -> None:
        """Know what depends on data from now on; what has no gradient is none."""
        for tensor in tensors_in(outputs):
            if tensor.requires_grad:
                self._data[id(tensor)] = tensor
                self._pixels |= {id(tensor)} if are_pixels else set()

    def add_without_data(self, outputs: Any, *, begins: bool) -> None:
        """Know what a function made of parameters only; where data `begins`, it is the explained layer's output."""
        if begins:
            self.add(outputs, are_pixels=self._is_at_input)
        else:
            self._constants |= {id(tensor): tensor for tensor in tensors_in(outputs) if tensor.requires_grad}
