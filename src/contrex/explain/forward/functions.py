"""Which torch functions a pass calls: intercepted one by one, or recorded as the program of the model."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contrex.models.beside import call

Interceptor = Callable[[Callable[..., object], tuple[object, ...], dict[str, object]], object]
"""Called as `(function, arguments, keywords)` instead of a torch function; what it returns is the function's result."""


@contextlib.contextmanager
def intercepted(interceptor: Interceptor) -> Iterator[None]:
    """Call `interceptor` instead of each torch function that this thread calls for a while, also `+` and `x.mean()`.

    Nothing is set in the model, so there is nothing to put back. Inside `interceptor` torch is itself again.
    """
    with _Interception(interceptor):
        yield


class _Interception(TorchFunctionMode):
    def __init__(self, interceptor: Interceptor) -> None:
        super().__init__()
        self._interceptor = interceptor

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        return self._interceptor(func, args, kwargs or {})


_SHAPING = {"view", "reshape", "unflatten", "expand", "interpolate", "adaptive_avg_pool2d", "arange", "__get__"}
"""Functions whose arguments may go by the size of the images, and leave the graph what it is."""
_CUTTING = {"narrow", "narrow_copy", "split", "split_with_sizes", "tensor_split", "pad", "unfold", "as_strided"} | {
    *("index_select", "gather", "take", "take_along_dim", "masked_select", "slice_scatter", "index_copy", "roll")
}
"""Functions that cut, add or choose so many entries whatever the size of the images; so do bounded slices."""
_RECORDING = threading.local()
"""The program that a thread records, while it does."""


class Program:
    """The torch functions that a pass calls, in order: their names, which results and parameters they take, and those
    other arguments that do not go by the size of the images."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.is_paused = False
        # By id, as tensors compare by their numbers. They are not kept alive, so an id may be used again: what it was
        # given for is held weakly, and looked at before its place is believed.
        self._made: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def record(self, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Call a function, and keep its name, what it took and what it gave."""
        if self.is_paused:
            return self._handed_on(function, args, kwargs)
        taken = (*args, *(value for _, value in sorted(kwargs.items())))
        name, place = getattr(function, "__name__", ""), len(self.calls)
        self.calls.append((name, *self._described(taken, is_shaping=name in _SHAPING)))
        output = function(*args, **kwargs)
        self._note(output, place)
        return output

    def _handed_on(
        self, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """Call a function in a hook of contrex, nearly always a look at a shape; a tensor that it gives stands for the
        first one that it took."""
        output = function(*args, **kwargs)
        if isinstance(output, (Tensor, tuple, list)):
            taken = (*args, *(value for _, value in sorted(kwargs.items())))
            self._note(output, next((self._place(one) for one in taken if isinstance(one, Tensor)), -1))
        return output

    def _note(self, output: object, place: int) -> None:
        """Keep which call made the tensors of an output."""
        for part in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(part, Tensor):
                self._made[id(part)] = (weakref.ref(part), place)

    def _described(self, values: Sequence[object], *, is_shaping: bool) -> Iterator[object]:
        for value in values:
            if isinstance(value, Tensor):
                yield self._place(value)
            elif isinstance(value, (tuple, list)):
                yield tuple(self._described(value, is_shaping=is_shaping))
            elif not is_shaping:
                yield repr(value) if isinstance(value, (bool, int, float, str, slice)) else type(value)

    def _place(self, tensor: Tensor) -> int:
        """Which call made a tensor; for a parameter, which it is."""
        made = self._made.get(id(tensor))
        if made is not None and made[0]() is tensor:
            return made[1]
        # Negative, so that no parameter is taken for a call; its id stays its own, as the model keeps it alive.
        return -id(tensor) if isinstance(tensor, nn.Parameter) else -1


@contextlib.contextmanager
def program() -> Iterator[list[tuple[object, ...]]]:
    """Record what the model calls in the passes of this thread inside.

    A network that calls the same functions for images of another size has the same graph there.
    """
    before, _RECORDING.program = getattr(_RECORDING, "program", None), Program()
    try:
        yield _RECORDING.program.calls
    finally:
        _RECORDING.program = before


def cuts_by_numbers(calls: Sequence[tuple[object, ...]]) -> bool:
    """Whether a program cuts off, adds or chooses entries by numbers: the same ones are another part of images of
    another size."""
    return any(
        name in _CUTTING or (name in ("__getitem__", "__setitem__") and _is_bounded(rest[1])) for name, *rest in calls
    )


def _is_bounded(index: object) -> bool:
    """Whether an index, as `Program` describes it, has a slice with an end, or is a list or a tensor."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(part, (int, tuple))
        or (isinstance(part, str) and part.startswith("slice(") and not part.startswith("slice(None, None"))
        for part in parts
    )


def called(model: nn.Module, images: Tensor) -> object:
    """Call the model with a copy of the images, which it may change, and record what it calls where that is asked."""
    recorded: Program | None = getattr(_RECORDING, "program", None)
    if recorded is None:
        return call(model, images.clone())
    with intercepted(recorded.record):
        return call(model, images.clone())


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Pause the recording: what a hook of contrex calls is none of the model's program."""
    recorded: Program | None = getattr(_RECORDING, "program", None)
    if recorded is None:
        yield
        return
    recorded.is_paused = True
    try:
        yield
    finally:
        recorded.is_paused = False
