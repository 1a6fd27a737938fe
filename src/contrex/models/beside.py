"""What a network gets beside the images: more arguments of its forward, with a row for each image.

Methods that ask about copies, changed images or one image of a batch say which images those are (`about`), so that each
gets its own rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from contrex.errors import ArgumentError

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""Arguments of a forward behind the images: one, several by place, or by name. Tensors have a row for each image;
numbers, texts and tensors without axes are the same for all."""

Rows = int | Sequence[int]
"""The images of a call that a batch is made of: one for each of the batch, or one that all are made of."""


@dataclass(frozen=True, eq=False)
class _Beside:
    """The arguments of a call about `num_images` images, and which of these the running passes are about."""

    placed: Sequence[Any]
    named: Mapping[str, Any]
    num_images: int
    rows: Rows | None = None

    def places(self, num: int, what: str) -> list[int]:
        """Which images of the call a batch of `num` is made of; `what` has something for each, for the error."""
        rows = [self.rows] * num if isinstance(self.rows, int) else self.rows
        rows = list(range(self.num_images)) if rows is None else list(rows)
        if len(rows) != num:
            raise ArgumentError(
                f"{what} for {self.num_images} image(s), and this method asks about {num} without saying which: "
                "use another explainer, or a network that takes images alone."
            )
        return rows

    def arguments(self, num: int) -> tuple[list[Any], dict[str, Any]]:
        """The arguments for a batch of `num` images."""
        if not (self.placed or self.named):
            return [], {}
        rows = self.places(num, "`inputs` are")
        return [_of(rows, value) for value in self.placed], {key: _of(rows, one) for key, one in self.named.items()}


_BESIDE: ContextVar[_Beside | None] = ContextVar("_BESIDE", default=None)
"""What networks get beside the images right now, in this thread."""


@contextlib.contextmanager
def given(inputs: Inputs | None, num_images: int) -> Iterator[None]:
    """Give networks `inputs` beside `num_images` images for a while.

    Raises:
        ArgumentError: they are neither a tensor, a sequence nor a mapping, or a tensor has not one row per image.
    """
    token = _BESIDE.set(_Beside([], {}, num_images) if inputs is None else _checked(inputs, num_images))
    try:
        yield
    finally:
        _BESIDE.reset(token)


@contextlib.contextmanager
def about(rows: Rows) -> Iterator[None]:
    """Say which images of the call the batches of the passes inside are made of."""
    beside = _BESIDE.get()
    if beside is None:
        yield
        return
    token = _BESIDE.set(_Beside(beside.placed, beside.named, beside.num_images, rows))
    try:
        yield
    finally:
        _BESIDE.reset(token)


def call(model: Callable[..., object], images: Tensor) -> object:
    """What a network returns for images, with what it is given beside them."""
    beside = _BESIDE.get()
    if beside is None:
        return model(images)
    placed, named = beside.arguments(len(images))
    return model(images, *placed, **named)


def places(num: int, what: str) -> list[int]:
    """Which images of the call a batch of `num` is made of, for `what` has something for each of them.

    Raises:
        ArgumentError: nobody has said it.
    """
    beside = _BESIDE.get()
    return list(range(num)) if beside is None else beside.places(num, what)


def kind() -> Hashable:
    """What of the arguments may decide which way a network takes: their types and shapes, and what is no tensor."""
    beside = _BESIDE.get()
    if beside is None:
        return None
    return tuple((name, _kind(value)) for name, value in (*enumerate(beside.placed), *beside.named.items()))


def _kind(value: Any) -> Hashable:
    return (value.shape[1:], value.dtype) if isinstance(value, Tensor) else repr(value)


def _checked(inputs: Inputs, num_images: int) -> _Beside:
    placed: Sequence[Any] = [inputs] if isinstance(inputs, Tensor) else []
    if isinstance(inputs, (tuple, list)):
        placed = inputs
    elif not isinstance(inputs, (Tensor, Mapping)):
        raise ArgumentError(
            f"`inputs` must be a tensor, a tuple of arguments or a mapping by name, got {type(inputs).__name__}."
        )
    named = inputs if isinstance(inputs, Mapping) else {}
    for name, value in (*enumerate(placed), *named.items()):
        if isinstance(value, Tensor) and value.ndim and len(value) != num_images:
            raise ArgumentError(
                f"`inputs` {name!r} must have a row for each of the {num_images} image(s), got {list(value.shape)}: "
                "repeat it for each image, `value.expand(len(images), ...)`."
            )
    return _Beside(placed, named, num_images)


def _of(rows: Sequence[int], value: Any) -> Any:
    """The rows of an argument; a copy, which the network may change."""
    return value[list(rows)] if isinstance(value, Tensor) and value.ndim else value
