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
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import resolve_name

from contrex.explain.forward.aliases import Aliases
from contrex.explain.forward.in_place import RESHAPING, tensors_in, written
from contrex.explain.propagation.functions import FunctionRules, Trace
from contrex.explain.propagation.rules import NoRuleError, Rules
from contrex.explain.propagation.tracked import Tracked

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


class Propagation:
    """Gives every torch function of one forward pass its rule.

    It is called instead of each function (`contrex.explain.forward.functions`), and calls it.
    """

    def __init__(self, model: nn.Module, rules: Rules, *, is_at_input: bool) -> None:
        self._tracked = Tracked(is_at_input=is_at_input)
        self._functions = FunctionRules(model, rules, self._tracked)
        self._aliases = Aliases()

    @property
    def trace(self) -> Trace:
        """What is needed of the pass once it is over."""
        return self._functions.trace

    def __call__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # First of all: the model still holds tensors as they were before a change in place, of which only a copy was
        # changed.
        args, kwargs = self._aliases.now(args), self._aliases.now(kwargs)
        # Rules take what is propagated as the first argument, however the model passes it.
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        target = written(func, args, kwargs)
        data = [t for t in tensors_in((args, kwargs)) if self._tracked.is_data(t)]
        self._check_writing(func, target, kwargs.get("out"))
        if not data or not torch.is_grad_enabled():
            outputs = self._without_data(func, args, kwargs)
        elif target is not None:
            outputs = self._changed(func, target, args, kwargs, data)
        else:
            outputs = self._outcome(func, args, kwargs, data, is_writing=False)
        for tensor in tensors_in(outputs) if self._tracked else ():
            self._aliases.add(tensor)
        return outputs

    def current(self, value: Any) -> Any:
        """What a module gave, after the changes in place that followed."""
        return self._aliases.now(value)

    def check(self) -> None:
        """Raise a `NoRuleError` if something was changed in place unseen; call it after the pass."""
        self._aliases.check(self._tracked.knows)

    def _outcome(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        data: Sequence[Tensor],
        *,
        is_writing: bool,
    ) -> Any:
        """Call a function and return what it gives, with its rule; of one that writes, its first argument then."""
        name = func.__name__.strip("_")
        if name in _ROUTING:
            # Written to a copy: rules and graph before this function hold on to the old values.
            changed = (args[0].clone(), *args[1:]) if is_writing else args
            outputs = func(*changed, **kwargs)
            return self._routed(changed[0] if is_writing else outputs, data)
        output = self._functions.apply(name, func, args, kwargs, num_data=len(data), is_writing=is_writing)
        if output is not None:
            self._tracked.add(output)
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
        """Call a function that changes `target`, and return what stands for it from then on."""
        if func.__name__ in RESHAPING:
            view: Tensor = self._routed(getattr(target, func.__name__[:-1])(*args[1:], **kwargs), data)
            self._aliases.reshape(target, view)
            return view
        value = self._outcome(func, args, kwargs, data, is_writing=True)
        are_pixels = self._tracked.are_pixels(target, value)
        self._tracked.add(list(self._aliases.replace(target, value)), are_pixels=are_pixels)
        found: Tensor = self._aliases.now(target)
        return found

    def _check_writing(self, func: Callable[..., Any], target: Tensor | None, out: object) -> None:
        """Refuse a change of data that the graph does not see: neither `out=` nor a write beside it has a rule."""
        is_seen = target is not None and self._tracked.is_data(target) and torch.is_grad_enabled()
        for tensor in tensors_in((None if is_seen else target, out)):
            if any(self._tracked.is_data(alias) for alias in self._aliases.of(tensor)):
                name = resolve_name(func) or func.__name__
                raise NoRuleError(f"{name} changes a tensor beside its graph (by out=, detach(), .data or no_grad)")

    def _without_data(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of parameters, or before the explained layer; `requires_grad_` tells where data begins."""
        outputs = func(*args, **kwargs)
        self._tracked.add_without_data(outputs, begins=func.__name__.strip("_") == "requires_grad")
        return outputs

    def _routed(self, outputs: Any, data: Sequence[Tensor]) -> Any:
        """Know outputs that are some of the `data`."""
        self._tracked.add(outputs, are_pixels=self._tracked.are_pixels(*data))
        return outputs


def innermost_module(error: BaseException, model: nn.Module) -> str:
    """The module whose forward pass raised: its name and type."""
    found, trace = model, error.__traceback__
    # The frames of the traceback are those of the forwards that were running, the outermost first.
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        found = owner if isinstance(owner, nn.Module) else found
        trace = trace.tb_next
    name = next((name for name, module in model.named_modules() if module is found), "")
    return f"`{name}` ({type(found).__name__})" if name else type(found).__name__
