"""Running a model for an explanation without leaving a trace in it. The only file of contrex with hooks.

The model is shared with whoever else holds it, so everything is put back also when the call raises: hooks, train / eval
flags, the random state. Several threads may explain one model: passes take turns, and a hook ignores the threads that
did not set it. A model that changes its input in place changes a copy.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from contrex.errors import LayerError
from contrex.explain.diagnosis import check_gradient, graph_nodes, scripted
from contrex.models import FeatureMapFinder, eval_mode
from contrex.models.compiled import uncompiled
from contrex.models.layers import Candidate, Reshape, feature_maps
from contrex.models.outputs import read_logits

_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Features:
    """What `layer` gave: `output`, the tensor in the graph, and `maps(output)` or of its gradient, `[N,C,h,w]`."""

    output: Tensor
    maps: Reshape
    layer: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: `images`, `logits` [N,K] float32 or better, and the `features` of each layer asked for.

    Where the images themselves are explained they are the only features. `is_shared` asks that the graph be kept for
    further questions.
    """

    images: Tensor
    logits: Tensor
    features: Sequence[Features]
    is_shared: bool = False


def forward(
    model: nn.Module, images: Tensor, layers: Sequence[nn.Module], *, graph: str, reshape: Reshape | None = None
) -> Pass:
    """Run `model` on `images` and keep what `layers` give; no layers stand for the images.

    `graph` says what autograd records: `"none"`; `"head"` - only what follows the first layer, so the part before it
    costs no memory; or `"all"`, for a loss on the explanation. The rest of the model gets a clone of each output, so
    an in-place ReLU behind a layer cannot change what was kept. `reshape` overrides how outputs are read as maps.

    With `"all"`, attention behind the first layer runs as the products that it is made of: the gradient of torch's
    fused kernels has no gradient.
    """
    behind = contextlib.ExitStack()
    seen: dict[nn.Module, list[Features]] = {layer: [] for layer in layers}
    owner = threading.get_ident()

    def keep(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        features = _features(module, output, images, reshape)
        starts_graph = (graph == "head" and not any(seen.values())) or not features.output.requires_grad
        if graph != "none" and starts_graph:
            features = Features(features.output.detach().requires_grad_(), features.maps, module)
        torch.set_grad_enabled(graph != "none")
        if graph == "all" and not any(seen.values()):
            behind.enter_context(sdpa_kernel(SDPBackend.MATH))
        seen[module].append(features)
        return features.output.clone()

    if not layers and graph != "none":
        images = images if images.requires_grad else images.detach().requires_grad_()
    with behind, torch.set_grad_enabled(graph == "all" or (not layers and graph != "none")), _hooked(layers, keep):
        if graph == "all" and not layers:
            behind.enter_context(sdpa_kernel(SDPBackend.MATH))
        logits = _logits(model(images.clone()), model, images)
    if not layers:
        if graph != "none":
            check_gradient(logits, "`images`", model)
        return Pass(images, logits, [Features(images, lambda pixels: pixels)])
    features = [_single(seen[layer], layer, model) for layer in layers]
    if graph != "none":
        check_gradient(logits, f"`layer` {_name(layers[0], model)!r}", model)
    return Pass(images, logits, features)


def forward_with(model: nn.Module, images: Tensor, layer: nn.Module, output: Tensor) -> Tensor:
    """The logits for `images` when `layer` gives `output` instead of its own; nothing is recorded.

    A single image may stand for many outputs, [n,...] to [n,K], in networks that broadcast what bypasses the layer.
    """
    owner = threading.get_ident()

    def replace(module: nn.Module, inputs: object, own: object) -> Tensor | None:
        return output.clone() if threading.get_ident() == owner else None

    with torch.no_grad(), _hooked([layer], replace):
        return _logits(model(images.clone()), model, output)


def forward_features(model: nn.Module, images: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
    """What `head` gets `[N,D]` and the logits `[N,K]`, both in the graph of one ordinary forward pass.

    `head` is the classifier at the model's end (`contrex.models.classifier_head`), so the first are the features of the
    encoder before it, after any dropout there. The model runs as it stands, in its own mode and under the caller's
    autocast, and records gradients as the caller asks. Logits are float32 or better, features as the head gets them.

    Raises:
        LayerError: `head` did not run or ran several times, or what it gets is not one row of features per image.
    """
    seen: list[tuple[object, ...]] = []
    owner = threading.get_ident()

    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if threading.get_ident() == owner:
            seen.append(inputs)

    with uncompiled(), _hooked([head], keep):
        logits = _logits(model(images.clone()), model, images)
    if len(seen) != 1:
        raise LayerError(
            f"`head` {_name(head, model)!r} must run once in a forward pass, it ran {len(seen)} times: choose the "
            "layer that gives the logits."
        )
    return _rows(seen[0], head, model, images), logits


@contextlib.contextmanager
def head_rows(head: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What `head` gets and gives, `[n,D]` and `[n,K]` without a graph, each time it runs in this thread inside.

    Where the head's output is the logits, those of an explanation tell which of its passes had the features of the
    images themselves. Passes that give the head anything but one row per image are left out.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    owner = threading.get_ident()

    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        rows = inputs[0] if len(inputs) == 1 and threading.get_ident() == owner else None
        if isinstance(rows, Tensor) and isinstance(output, Tensor) and rows.ndim == output.ndim == 2:
            seen.append((rows.detach(), output.detach()))

    with _hooked([head], keep):
        yield seen


def find_feature_maps(model: nn.Module, images: Tensor) -> Sequence[Candidate]:
    """The layers before the classifier that give feature maps, the last one first, seen in a pass of one image."""
    finder = FeatureMapFinder((images.shape[2], images.shape[3]))
    with undisturbed(model, images.device), torch.no_grad(), watched(list(model.modules()), finder.see):
        logits = _logits(model(images[:1].clone()), model, images[:1])
    return finder.candidates(model, logits)


Interceptor = Callable[[Callable[..., object], tuple[object, ...], dict[str, object]], object]
"""Called as `(function, arguments, keywords)` instead of a torch function; what it returns is the function's result."""


@contextlib.contextmanager
def intercepted(interceptor: Interceptor) -> Iterator[None]:
    """Every torch function that this thread calls inside, also `+` and `x.mean()`, goes to `interceptor` instead.

    Nothing is set in the model, so there is nothing to put back. Inside `interceptor` torch is itself again.
    """
    with _Interception(interceptor):
        yield


@contextlib.contextmanager
def watched(modules: Sequence[nn.Module], see: Callable[[nn.Module, object], None]) -> Iterator[None]:
    """`see(module, output)` for each pass of `modules` in this thread; a ScriptModule among them is not seen.

    Raises:
        LayerError: there is nothing but ScriptModules.
    """
    owner = threading.get_ident()
    visible = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    if modules and not visible:
        raise scripted(f"{type(modules[0]).__name__} is")

    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == owner:
            see(module, output)

    with _hooked(visible, watch):
        yield


def change_relu_rule(logits: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Every ReLU in the graph behind `logits` sends back `rule(gradient it would send, gradient it received)`.

    The rule is set in the graph of this one pass, not in the model, and goes with it; so modules, functions and
    in-place ReLUs are caught alike. ReLU6 counts, and so does any hardtanh that clips at 0.

    Raises:
        LayerError: there is no ReLU, or a part of the graph hides what it runs (compiled or checkpointed inside).
    """
    num = 0
    for node in graph_nodes(logits):
        if isinstance(node, torch.autograd.function.BackwardCFunction) or "DifferentiableGraph" in node.name():
            raise LayerError(
                f"the model runs {node.name().rpartition('::')[2]}, which hides its ReLUs: explain it without autograd "
                "functions of its own, torch.jit.script and reentrant checkpointing inside."
            )
        if _sends_back_as_relu(node):
            node.register_hook(lambda sent, received: tuple(rule(grad, received[0]) for grad in sent))
            num += 1
    if not num:
        raise LayerError(
            "the model has no ReLU whose backward rule could be changed, or runs it without gradients: use the plain "
            "Gradient."
        )


def _sends_back_as_relu(node: Node) -> bool:
    return node.name().startswith("ReluBackward") or (
        node.name().startswith("HardtanhBackward") and getattr(node, "_saved_min_val", None) == 0
    )


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


@contextlib.contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[..., object]) -> Iterator[None]:
    """`hook(module, inputs, output)` after the forward of each module, for a while."""
    handles = []
    try:
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                raise scripted("`layer` is in")
            handles.append(module.register_forward_hook(hook))  # one by one: those set so far must go on an error
        yield
    finally:
        for handle in handles:
            handle.remove()


def _features(layer: nn.Module, output: object, images: Tensor, reshape: Reshape | None) -> Features:
    name = type(layer).__name__
    maps = reshape or feature_maps(output, (images.shape[2], images.shape[3]), len(images))
    if not isinstance(output, Tensor) or maps is None:
        what = f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise LayerError(
            f"`layer` must give a feature map, {name} gives {what} for images {list(images.shape)}, which is no grid "
            "[N,C,h,w], [N,h,w,C] or [N,T,D] of their proportions: choose another, or pass "
            "`reshape=`, a function from its output to [N,C,h,w]."
        )
    shape = maps(output.detach()).shape
    if len(shape) != 4 or shape[0] != len(images):
        raise LayerError(f"`reshape` must give [{len(images)},C,h,w], it gave {list(shape)} for {list(output.shape)}.")
    return Features(output, maps, layer)


def _single(seen: Sequence[Features], layer: nn.Module, model: nn.Module) -> Features:
    if len(seen) == 1:
        return seen[0]
    name = _name(layer, model)
    if not seen:
        raise LayerError(f"`layer` {name!r} did not run in the forward pass: choose one that does.")
    raise LayerError(f"`layer` {name!r} ran {len(seen)} times in one pass, so its map is ambiguous: choose another.")


def _rows(inputs: tuple[object, ...], head: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    """The only input of `head`, one row per image."""
    features = inputs[0] if len(inputs) == 1 else None
    rows = features.flatten(1) if isinstance(features, Tensor) and features.ndim > 1 else None
    fits = rows is not None and len(rows) == len(images)
    if rows is None or not fits or (isinstance(head, nn.Linear) and rows.shape[1] != head.in_features):
        got = f"a tensor {list(features.shape)}" if isinstance(features, Tensor) else f"{len(inputs)} inputs"
        raise LayerError(
            f"`head` {_name(head, model)!r} must get one row of features per image, [{len(images)},D], it gets {got}: "
            "choose the layer that gives the logits."
        )
    return rows


def _name(layer: nn.Module, model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is layer), type(layer).__name__)


def _logits(output: object, model: nn.Module, images: Tensor) -> Tensor:
    logits = read_logits(output, model, len(images))
    logits = logits.clone() if logits.is_inference() else logits  # a forward under inference mode
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
