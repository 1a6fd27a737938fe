"""Which tensors of a pass depend on the explained layer."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from contrex.explain.forward.in_place import tensors_in
from contrex.explain.propagation.rules import NoRuleError

Mark = Literal["pixels", "gate", "factor"]
"""What is special about data: *pixels* are the images, as long as functions only move or normalise them; a *gate* is
between 0 and a constant; a *factor* gets no relevance and may only multiply or divide, such as the norm of a vector."""


class Tracked:
    """The tensors of one pass that relevance may reach: *data* depends on the explained layer, a constant does not.

    Some data have a mark. At the input (`is_at_input`) data begin as pixels.
    """

    def __init__(self, *, is_at_input: bool) -> None:
        self._is_at_input = is_at_input
        # By id, as tensors compare by their numbers. All are kept until the pass is over, so that no other tensor takes
        # over an id; of those with a mark, which are among the data, the ids are enough.
        self._data: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        self._marks: dict[int, Mark] = {}

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

    def mark(self, *tensors: Tensor) -> Mark | None:
        """The mark that all of the tensors have; None where they differ."""
        marks = {self._marks.get(id(tensor)) for tensor in tensors}
        return marks.pop() if len(marks) == 1 else None

    def has_factor(self, *tensors: Tensor) -> bool:
        """Whether any of the tensors is a factor."""
        return any(self._marks.get(id(tensor)) == "factor" for tensor in tensors)

    def are_pixels(self, *tensors: Tensor) -> bool:
        """Whether tensors are the images, or parts of them."""
        return self.mark(*tensors) == "pixels"

    def add(self, outputs: Any, *, mark: Mark | None = None) -> None:
        """Know what depends on data from now on; what has no gradient is none."""
        for tensor in tensors_in(outputs):
            if tensor.requires_grad:
                self._data[id(tensor)] = tensor
                if mark is not None:
                    self._marks[id(tensor)] = mark

    def add_without_data(self, outputs: Any, *, begins: bool) -> None:
        """Know what a function made of parameters only; where data `begins`, it is the explained layer's output."""
        if begins:
            self.add(outputs, mark="pixels" if self._is_at_input else None)
        else:
            self._constants |= {id(tensor): tensor for tensor in tensors_in(outputs) if tensor.requires_grad}
