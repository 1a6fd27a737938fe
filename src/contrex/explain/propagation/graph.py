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
from contrex.explain.forward.functions import intercepted
from contrex.explain.forward.in_place import RESHAPING, tensors_in, written
from contrex.explain.propagation.conservation import Ledger
from contrex.explain.propagation.functions import FunctionRules
from contrex.explain.propagation.linear_maps import Trace
from contrex.explain.propagation.names import Names
from contrex.explain.propagation.rules import NoRuleError, Rules
from contrex.explain.propagation.tracked import Tracked
from contrex.explain.propagation.written_out import WRITTEN_OUT

_ROUTING = {
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "chunk", "split", "tensor_split", "unbind"),
    *("unsafe_chunk", "split_with_sizes", "getitem", "select", "narrow", "index_select", "gather", "take_along_dim"),
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
        "expand_as",
    ),
    *("broadcast_to", "repeat", "tile", "repeat_interleave", "pad", "unfold", "get", "diagonal", "where"),
    *("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "roll", "flip", "rot90"),
    *("channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
    *("clone", "contiguous", "to", "type", "type_as", "float", "double", "half", "bfloat16", "requires_grad"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("amax", "amin", "maximum", "minimum", "setitem", "copy", "fill", "zero", "masked_fill"),
}
"""Functions whose outputs are some of their inputs, or constants: relevance goes the way of the gradient."""
_WINNERS = {"maximum", "minimum"}
"""Of these, the ones that choose by value."""


class Propagation:
    """Gives every torch function of one forward pass its rule.

    It is called instead of each function (`contrex.explain.forward.functions`), and calls it.
    """

    def __init__(self, model: nn.Module, rules: Rules, *, is_at_input: bool) -> None:
        self._tracked = Tracked(is_at_input=is_at_input)
        self._names = Names(model)
        self._functions = FunctionRules(self._names, rules, self._tracked)
        self._ledger = rules.ledger
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
            self._names.add((args, kwargs), outputs, target=target)
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

    def check(self, logits: Tensor) -> None:
        """Raise a `NoRuleError` if something was changed in place unseen, or no relevance can begin at the logits; call
        it after the pass."""
        self._aliases.check(self._tracked.knows)
        if self._tracked.has_factor(logits):
            raise NoRuleError("the logits are what only multiplies elsewhere (a norm, constant attention)")

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
            outputs = self._routed(changed[0] if is_writing else outputs, data)
            if self._ledger is not None and name not in _WINNERS:
                count_constants(self._ledger, func, args, kwargs, outputs, self._tracked.is_data)
            return outputs
        if name in WRITTEN_OUT and not is_writing:
            with intercepted(self):  # torch is itself in here, and each part needs its rule
                return WRITTEN_OUT[name](*args, **kwargs)
        output = self._functions.apply(func, args, kwargs, is_writing=is_writing)
        if output is not None:
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
        mark = self._tracked.mark(value)
        self._tracked.add(list(self._aliases.replace(target, value)), mark=self._tracked.mark(target, value))
        found: Tensor = self._aliases.now(target)
        # Those that share the memory may view more of it than was changed; this one does not.
        self._tracked.add(found, mark=None if mark == "pixels" else mark)
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
        mark = self._tracked.mark(*data)
        if mark != "factor" and self._tracked.has_factor(*data):
            raise NoRuleError("what only multiplies elsewhere (a norm, constant attention) is joined with other data")
        self._tracked.add(outputs, mark=mark)
        return outputs


def count_constants(
    ledger: Ledger,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    is_data: Callable[[object], bool],
) -> None:
    """Count the relevance of those cells of the outputs that are constants: class tokens, fill values."""
    taken = [t for t in tensors_in(args) if t.is_floating_point()]
    if all(map(is_data, taken)):
        return

    def told(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.full_like(value, 0.0 if is_data(value) else 1.0).detach()
        return type(value)(map(told, value)) if type(value) in (tuple, list) else value

    with torch.no_grad():
        places = told(args)
        result = func(*places, **kwargs)
    places = places[0] if result is None else result  # `setitem` gives nothing
    for output, place in zip(tensors_in(outputs), tensors_in(places), strict=True):
        if output.requires_grad:
            # It sees the relevance of all uses of this tensor together, and goes with the graph.
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda relevance, place=place: ledger.add("constants", relevance * place)
            )


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
