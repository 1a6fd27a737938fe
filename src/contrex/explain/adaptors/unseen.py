"""Functions of a network that captum does not see: it changes the rules of modules, by hooks on these."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward import capture
from contrex.explain.forward.diagnosis import scripted
from contrex.explain.forward.functions import intercepted
from contrex.models.layers import layer_name

_LOWER_BOUND = {"hardtanh": ("min_val", -1.0), "threshold": ("threshold", None), "clamp": ("min", None),
                "clip": ("min", None), "clamp_min": ("min", None)}  # fmt: skip
"""Functions that send nothing back below a number, the name of that argument, their second, and its default."""
_BENT = {
    *("relu6", "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
    *("log_sigmoid", "log_softmax", "logsigmoid", "mish", "prelu", "rrelu", "selu", "sigmoid", "silu", "softmax"),
    *("softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
    *("scaled_dot_product_attention", "multi_head_attention_forward"),  # softmax is inside
}
"""Functions with a bend, or curved."""
_POOLING = tuple(f"{kind}max_pool{rank}d" for kind in ("", "adaptive_") for rank in (1, 2, 3))
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_DEEP_LIFT = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax, *_POOLS)


@dataclass(frozen=True)
class _Sight:
    """What a class of captum changes the rule of: these functions (by name; `is_rectifier` where they are one), in a
    module that it `sees`."""

    has_rule: Callable[[str, bool], bool]
    sees: Callable[[nn.Module], bool]
    seen: str
    instead: str
    needs_one: bool = False


def _guided(instead: str) -> _Sight:
    return _Sight(lambda _, is_one: is_one, lambda one: isinstance(one, nn.ReLU), "nn.ReLU modules", instead, True)


_LIFTED = _Sight(
    lambda name, is_one: is_one or name in _BENT or name.removesuffix("_with_indices") in _POOLING,
    lambda module: type(module) in _DEEP_LIFT,
    f"{', '.join(kind.__name__ for kind in _DEEP_LIFT)} modules of torch.nn",
    "contrex.IntegratedGradients, which is complete too",
)
# A ReLU passes on its relevance as it would its gradient.
_LAYERWISE = _Sight(
    lambda name, is_one: name != "relu" and (is_one or name in _BENT),
    lambda module: next(module.children(), None) is None,
    "modules",
    "contrex.LRP, which sees functions",
)
_SIGHTS: Mapping[str, _Sight] = {
    "GuidedBackprop": _guided("contrex.GuidedBackprop, which sees every ReLU"),
    "Deconvolution": _guided("contrex.Deconvnet, which sees every ReLU"),
    "GuidedGradCam": _guided("contrex.GuidedGradCAM, which sees every ReLU"),
    **dict.fromkeys(("DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap"), _LIFTED),
    **dict.fromkeys(("LRP", "LayerLRP"), _LAYERWISE),
}


@contextlib.contextmanager
def checked(name: str, model: nn.Module, layer: nn.Module | None) -> Iterator[None]:
    """Refuse a pass, made inside, that calls functions whose rule captum's class `name` changes, where it sees none.

    Behind `layer`, if one is given: what runs before it is not explained.

    Raises:
        LayerError: there are such functions, or modules that hide theirs.
    """
    sight = _SIGHTS.get(name)
    if sight is None:
        yield
        return
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise scripted(f"{type(model).__name__} is, or has,")
    running: list[nn.Module] = []
    called: list[tuple[str, nn.Module | None]] = []
    owner = threading.get_ident()

    def begin(module: nn.Module, inputs: object) -> None:
        if threading.get_ident() == owner:
            running.append(module)

    def end(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == owner:
            running.pop()
            if module is layer:
                called.clear()

    def note(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        called_as = getattr(function, "__name__", "").strip("_")
        if sight.has_rule(called_as, _is_rectifier(called_as, args, kwargs)):
            called.append((called_as, running[-1] if running else None))
        return function(*args, **kwargs)

    with capture.hooked(modules, begin, before=True), capture.hooked(modules, end), intercepted(note):
        yield
    unseen = next((one for one in called if one[1] is None or not sight.sees(one[1])), None)
    if unseen is not None:
        function, module = unseen
        where = "what is read of its output" if module is None else repr(layer_name(module, model))
        raise LayerError(
            f"captum's {name} sees {sight.seen} alone, and {type(model).__name__} calls {function} in {where}: make "
            f"that such a module, or use {sight.instead}."
        )
    if sight.needs_one and not called:
        raise LayerError(f"captum's {name} sees {sight.seen} alone, and {type(model).__name__} has none: use Gradient.")


@contextlib.contextmanager
def apart(name: str, model: nn.Module) -> Iterator[None]:
    """Give the activations whose rule captum's class `name` changes a copy of what they get each, for a while.

    captum sets the rule as a hook on that tensor, where it also takes in the gradient of whatever else goes on with it:
    the way past a block whose first layer is an activation.
    """
    modules = _activations(name, model)
    owner = threading.get_ident()

    def give(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...] | None:
        if threading.get_ident() != owner:
            return None
        return tuple(one.clone() if isinstance(one, Tensor) else one for one in inputs)

    with capture.hooked(modules, give, before=True):
        yield


def changes_in_place(name: str, model: nn.Module) -> bool:
    """Whether such an activation works in place: of its copy, so who else goes on with its input gets another one."""
    return any(getattr(one, "inplace", False) for one in _activations(name, model))


def _activations(name: str, model: nn.Module) -> list[nn.Module]:
    sight = _SIGHTS.get(name)
    if sight is None or sight is _LAYERWISE:
        return []
    return [one for one in model.modules() if sight.sees(one) and not isinstance(one, _POOLS)]


def _is_rectifier(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function clips at the number 0."""
    if name in _LOWER_BOUND:
        bound, default = _LOWER_BOUND[name]
        low = args[1] if len(args) > 1 else kwargs.get(bound, default)
        return isinstance(low, (int, float)) and low == 0
    return name in ("relu", "relu6")
