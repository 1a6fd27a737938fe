"""What a network gets beside the images: more arguments of its forward, with a row for each image, and which of them
the images are.

Methods that ask about copies, changed images or one image of a batch say which images those are (`about`), so that each
gets its own rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from contrex.errors import ArgumentError

Key = int | str


class Arguments:
    """All that the forward of a network gets beside the images, and where the images go.

        Arguments(meta, of=1)                         # model(meta, images)
        Arguments(text=tokens, of="pixel_values")     # model(text=tokens, pixel_values=images)
        Arguments({"meta": meta}, of=(0, "image"))    # model({"meta": meta, "image": images})

    `of` is a place among the arguments, or a name; or several: of the argument, and of an entry inside. Of networks
    with several images (pairs), the one that goes there is explained. Tensors, also inside mappings and lists, have a
    row for each image.

    Raises:
        ArgumentError: there is no such place.
    """

    def __init__(self, *placed: Any, of: Key | Sequence[Key] = 0, **named: Any) -> None:
        self.placed, self.named = placed, named
        self.of: tuple[Key, ...] = (of,) if isinstance(of, (int, str)) else tuple(of)
        first, *inside = self.of or ("",)
        is_place = isinstance(first, int) and 0 <= first < len(placed) + (not inside)
        is_name = isinstance(first, str) and first and (first in named) == bool(inside)
        if not (is_place or is_name):
            raise ArgumentError(
                f"`of` must be where the images go, a place in 0..{len(placed)} or a name that no other argument has, "
                f"or of an argument and of an entry inside; got {of!r} beside {len(placed)} argument(s) by place"
                f"{' and ' + ', '.join(named) if named else ''}."
            )


Inputs = Tensor | Sequence[Any] | Mapping[str, Any] | Arguments
"""Arguments of a forward behind the images: one, several by place, or by name; or `Arguments`, which says where the
images go. Tensors have a row for each image; numbers, texts and tensors without axes are the same for all."""

Rows = int | Sequence[int]
"""The images of a call that a batch is made of: one for each of the batch, or one that all are made of."""


@dataclass(frozen=True, eq=False)
class _Beside:
    """The arguments of a call about `num_images` images, and which of these the running passes are about."""

    placed: Sequence[Any]
    named: Mapping[str, Any]
    num_images: int
    of: tuple[Key, ...] = (0,)
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
        if not (self.placed or self.named):  # nothing has rows
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
    token = _BESIDE.set(replace(beside, rows=rows))
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
    place, *inside = beside.of
    if isinstance(place, str):
        named[place] = _put(named.get(place), inside, images)
    elif inside:
        placed[place] = _put(placed[place], inside, images)
    else:
        placed.insert(place, images)
    return model(*placed, **named)


def _put(container: Any, inside: Sequence[Key], images: Tensor) -> Any:
    """A mapping or list with the images at their place inside; the images themselves where it is outside."""
    if not inside:
        return images
    place, *further = inside
    if isinstance(container, Mapping):
        return {**container, place: _put(container.get(place), further, images)}
    if not isinstance(container, (list, tuple)) or not isinstance(place, int):
        raise ArgumentError(
            f"`of` names {place!r} inside of what is no mapping or list but {type(container).__name__}: give `inputs` "
            "the mapping or list that the images go into."
        )
    entries = list(container)
    entries[place : place + bool(further)] = [_put(entries[place] if further else None, further, images)]
    return type(container)(entries)


def places(num: int, what: str) -> list[int]:
    """Which images of the call a batch of `num` is made of, for `what` has something for each of them.

    Raises:
        ArgumentError: nobody has said it.
    """
    beside = _BESIDE.get()
    return list(range(num)) if beside is None else beside.places(num, what)


def has_inputs() -> bool:
    """Whether networks get anything beside the images right now."""
    beside = _BESIDE.get()
    return beside is not None and bool(beside.placed or beside.named)


def name_of_map(sides: Sequence[int]) -> Key | None:
    """The name or place of an argument that has the sides [H,W] of the images; None where none has."""
    beside = _BESIDE.get()
    if beside is None:
        return None
    tensors = _tensors((*enumerate(beside.placed), *beside.named.items()))
    return next((name for name, one in tensors if one.ndim > 2 and one.shape[-len(sides) :] == tuple(sides)), None)


def kind() -> Hashable:
    """What of the arguments may decide which way a network takes: their types and shapes, and what is no tensor."""
    beside = _BESIDE.get()
    if beside is None:
        return None
    given = (*enumerate(beside.placed), *beside.named.items())
    return beside.of, *[(name, _kind(value)) for name, value in given]


def _kind(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((key, _kind(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return (value.shape[1:], value.dtype) if isinstance(value, Tensor) else repr(value)


def _checked(inputs: Inputs, num_images: int) -> _Beside:
    placed: Sequence[Any] = [inputs] if isinstance(inputs, Tensor) else []
    of: tuple[Key, ...] = (0,)
    if isinstance(inputs, Arguments):
        placed, of, inputs = inputs.placed, inputs.of, inputs.named
    elif isinstance(inputs, (tuple, list)):
        placed = inputs
    elif not isinstance(inputs, (Tensor, Mapping)):
        raise ArgumentError(
            f"`inputs` must be a tensor, a tuple of arguments or a mapping by name, got {type(inputs).__name__}."
        )
    named = inputs if isinstance(inputs, Mapping) else {}
    for name, value in _tensors((*enumerate(placed), *named.items())):
        if value.ndim and len(value) != num_images:
            raise ArgumentError(
                f"`inputs` {name!r} must have a row for each of the {num_images} image(s), got {list(value.shape)}: "
                "repeat it for each image, `value.expand(len(images), ...)`."
            )
    return _Beside(placed, named, num_images, of)


def _tensors(named: Iterable[tuple[Key, Any]]) -> Iterator[tuple[Key, Tensor]]:
    """The tensors of arguments, those inside mappings and lists too, by the innermost name or place."""
    for name, value in named:
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, (Mapping, list, tuple)):
            yield from _tensors(value.items() if isinstance(value, Mapping) else enumerate(value))


def _of(rows: Sequence[int], value: Any) -> Any:
    """The rows of an argument, inside mappings and lists too; a copy, which the network may change."""
    if isinstance(value, Mapping):
        return {key: _of(rows, one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_of(rows, one) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value[list(rows)] if isinstance(value, Tensor) and value.ndim else value
