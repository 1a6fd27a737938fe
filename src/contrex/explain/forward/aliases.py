"""Which tensors of a pass share memory, so that a change of one in place reaches the others without being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from contrex.explain.propagation.rules import NoRuleError


class Aliases:
    """The tensors of one pass by the memory they share, and what stands for each since a change in place.

    All are kept until the pass is over, so that no other tensor takes over an id or a memory.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, int]] = []
        """Each tensor with its version: a change that was not seen has raised it."""
        self._now: dict[int, Tensor] = {}
        """By the id of a tensor, as tensors compare by their numbers: what stands for it now."""
        self._sharing: dict[int, list[int]] = {}
        """By the place of a memory: the ids of the tensors that share it."""

    def add(self, tensor: Tensor) -> None:
        """Know a tensor that a function has made."""
        if id(tensor) not in self._now and tensor.layout == torch.strided:
            self._kept.append((tensor, _version(tensor)))
            self._stands(id(tensor), tensor)

    def now(self, value: Any) -> Any:
        """`value` with all tensors in it as they are after the changes so far."""
        if isinstance(value, Tensor):
            return self._now.get(id(value), value)
        if type(value) in (tuple, list):
            return type(value)(self.now(item) for item in value)
        return {key: self.now(item) for key, item in value.items()} if type(value) is dict else value

    def of(self, tensor: Tensor) -> list[Tensor]:
        """All known tensors that share the memory of `tensor`."""
        return [self._now[key] for key in self._sharing.get(_memory(tensor), ())]

    def replace(self, target: Tensor, value: Tensor) -> list[Tensor]:
        """Let `value` stand for `target`, with those that share its memory; gives all tensors that are new."""
        for tensor in (target, target._base):  # one of the model's own may not be known yet
            if tensor is not None:
                self.add(tensor)
        before = {key: self._now[key] for key in self._sharing.pop(_memory(target))}
        # A buffer without data, into which data is written, becomes data with all its aliases. Where some were data
        # before, those that were not are detached on purpose, and stay so.
        has_data = any(alias.requires_grad for alias in before.values())
        new = {id(target): value}
        if any(_geometry(alias) != _geometry(target) for alias in before.values()):
            whole = _with_part(list(before.values()), target, value)
            new = {id(alias): whole.as_strided(*_geometry(alias)[1:]) for alias in before.values()}
        for key, alias in before.items():
            after = new.setdefault(id(alias), value.view_as(value))
            self._stands(key, after.detach() if has_data and not alias.requires_grad else after)
        for tensor in new.values():
            self.add(tensor)
        return list(new.values())

    def reshape(self, target: Tensor, view: Tensor) -> None:
        """Let a view of `target` stand for it alone."""
        self._now |= {key: view for key in self._sharing[_memory(target)] if self._now[key] is target}
        self.add(view)

    def check(self, are_data: Callable[[Tensor], bool]) -> None:
        """Raise a `NoRuleError` if a function has changed what it should not have been able to."""
        if any(_version(tensor) != version and are_data(tensor) for tensor, version in self._kept):
            raise NoRuleError("a function that cannot be intercepted changes a tensor in place")

    def _stands(self, key: int, tensor: Tensor) -> None:
        self._now[key] = tensor
        self._sharing.setdefault(_memory(tensor), []).append(key)


def _version(tensor: Tensor) -> int:
    """How often the tensor was changed in place; those of inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def _memory(tensor: Tensor) -> int:
    # The storage itself, not its `data_ptr`: that is 0 for every empty memory.
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _geometry(tensor: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, ...], int]:
    return tensor.dtype, tensor.size(), tensor.stride(), int(tensor.storage_offset())


def _with_part(aliases: Sequence[Tensor], target: Tensor, value: Tensor) -> Tensor:
    """The memory that `aliases` share, as one row `[n]`, with `value` in the place of `target`."""
    size = target.untyped_storage().nbytes() // target.itemsize
    whole = [alias for alias in aliases if alias.numel() == size and 0 not in alias.stride()]
    if not whole or any(alias.dtype != target.dtype for alias in aliases):
        raise NoRuleError("a tensor is changed in place whose memory is shared in a way that cannot be followed")
    row = whole[0].as_strided((size,), (1,), 0).clone()
    row.as_strided(*_geometry(target)[1:]).copy_(value)  # as_strided_scatter has a wrong gradient in torch 2.14
    return row
