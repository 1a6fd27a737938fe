"""Running a model for an explanation without leaving a trace in it. The only file of contrex with hooks.

The model is shared with whoever else holds it, so everything is put back also when the call raises: hooks, train / eval
flags, the random state. Several threads may explain one model: passes take turns, and a hook ignores the threads that
did not set it.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError
from contrex.models import FeatureMapFinder, eval_mode
from contrex.models.layers import channels_first

_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: `logits` [N,K] float32 or better, and the `activation` they were computed from."""

    logits: Tensor
    activation: Tensor


def forward(model: nn.Module, images: Tensor, layer: nn.Module | None, *, graph: str) -> Pass:
    """Run `model` on `images` and keep the output of `layer` (the images themselves when it is None).

    `graph` says what autograd records: `"none"`; `"head"` - only what follows the layer, so the part before it costs no
    memory; or `"all"`, for a loss on the explanation. The rest of the model gets a clone of the activation, so
    an in-place ReLU behind the layer cannot change what was kept.
    """
    seen: list[Tensor] = []
    owner = threading.get_ident()

    def keep(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        activation = _feature_map(module, output, images)
        if graph == "head":
            activation = activation.detach().requires_grad_()
            torch.set_grad_enabled(True)
        seen.append(activation)
        return activation.clone()

    if layer is None and graph != "none":
        images = images if images.requires_grad else images.detach().requires_grad_()
    with torch.set_grad_enabled(graph == "all" or (layer is None and graph != "none")):
        if layer is None:
            return Pass(_logits(model(images), model, images), images)
        with _hooked([layer], keep):
            logits = _logits(model(images), model, images)
            return Pass(logits, _single(seen, layer, model))


def find_feature_map(model: nn.Module, images: Tensor) -> nn.Module:
    """The layer before the classifier, seen in one pass of the first image."""
    finder = FeatureMapFinder((images.shape[2], images.shape[3]))
    owner = threading.get_ident()

    def see(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == owner:
            finder.see(module, output)

    with undisturbed(model, images.device), torch.no_grad(), _hooked(list(model.modules()), see):
        logits = _logits(model(images[:1]), model, images[:1])
    return finder.layer(model, logits.shape[1])


@contextlib.contextmanager
def turn(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread runs an explanation of this model."""
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock:
        yield


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode inside; afterwards every module's own mode and the random state as they were."""
    devices = [device] if device.type == "cuda" else []
    with eval_mode(model), torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def _hooked(modules: list[nn.Module], hook: Callable[..., object]) -> Iterator[None]:
    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(hook))  # noqa: PERF401 - those set so far must go on an error
        yield
    finally:
        for handle in handles:
            handle.remove()


def _feature_map(layer: nn.Module, output: object, images: Tensor) -> Tensor:
    name = type(layer).__name__
    if not isinstance(output, Tensor) or output.ndim != 4:
        what = f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise LayerError(f"`layer` must give a feature map [N,C,h,w], {name} gives {what}: choose another.")
    if not channels_first(output, (images.shape[2], images.shape[3])):
        raise LayerError(
            f"`layer` {name} gives {list(output.shape)} for images {list(images.shape)}: h / w does not fit them, "
            "so the channels seem to come last. Choose a layer that gives [N,C,h,w]."
        )
    return output


def _single(seen: list[Tensor], layer: nn.Module, model: nn.Module) -> Tensor:
    if len(seen) == 1:
        return seen[0]
    name = next((name for name, module in model.named_modules() if module is layer), type(layer).__name__)
    if not seen:
        raise LayerError(f"`layer` {name!r} did not run in the forward pass: choose one that does.")
    raise LayerError(f"`layer` {name!r} ran {len(seen)} times in one pass, so its map is ambiguous: choose another.")


def _logits(output: object, model: nn.Module, images: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(
            f"`model` must return logits [N,K], {type(model).__name__} returned {got}: wrap it so that it does."
        )
    return output.to(torch.promote_types(output.dtype, torch.float32))
