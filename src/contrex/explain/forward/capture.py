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
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from contrex.errors import LayerError
from contrex.explain.forward.diagnosis import check_gradient, graph_nodes, scripted
from contrex.models import eval_mode
from contrex.models.compiled import uncompiled
from contrex.models.graph import Edge, edge_of
from contrex.models.layers import Reshape, Site, layer_name
from contrex.models.outputs import read_logits

FULL_PRECISION = (torch.float32, torch.float64)

OWN_HOOKS: set[int] = set()
"""The numbers of the hooks that are set here right now; one of anybody else's may make another network of a model."""

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


def forward(model: nn.Module, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
    """Run `model` on `images` and keep what `layers` give; no layers stand for the images.

    `graph` says what autograd records: `"none"`; `"head"` - only what follows the first layer, so the part before it
    costs no memory; or `"all"`, for a loss on the explanation. The rest of the model gets a clone of each output, so
    an in-place ReLU behind a layer cannot change what was kept.

    With `"all"`, attention behind the first layer runs as the products that it is made of: the gradient of torch's
    fused kernels has no gradient.
    """
    behind = contextlib.ExitStack()
    sites = {site.module: site for site in layers}
    seen: dict[nn.Module, list[Features]] = {module: [] for module in sites}
    owner = threading.get_ident()

    def keep(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        features = _features(sites[module], output, images)
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
    with (
        behind,
        torch.set_grad_enabled(graph == "all" or (not layers and graph != "none")),
        _hooked(list(sites), keep),
    ):
        if graph == "all" and not layers:
            behind.enter_context(sdpa_kernel(SDPBackend.MATH))
        logits = _logits(_called(model, images), model, images)
    if not layers:
        if graph != "none":
            check_gradient(logits, "`images`", model)
        return Pass(images, logits, [Features(images, lambda pixels: pixels)])
    features = [only_run(seen[module], module, model) for module in sites]
    if graph != "none":
        check_gradient(logits, f"`layer` {layers[0].name!r}", model)
    return Pass(images, logits, features)


_SHAPING = {"view", "reshape", "unflatten", "expand", "interpolate", "adaptive_avg_pool2d", "arange", "__get__"}
"""Functions whose arguments may go by the size of the images, and leave the graph what it is."""
_RECORDING = threading.local()


class Program:
    """The torch functions that a pass calls, in order: their names, which results and parameters they take, and those
    other arguments that do not go by the size of the images."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.is_paused = False
        self._made: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def record(self, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Call a function, and keep what it was."""
        taken = (*args, *(value for _, value in sorted(kwargs.items())))
        name = getattr(function, "__name__", "")
        if self.is_paused:  # a hook of contrex hands a tensor on
            place = next((self._place(one) for one in taken if isinstance(one, Tensor)), -1)
        else:
            place = len(self.calls)
            self.calls.append((name, *self._described(taken, is_shaping=name in _SHAPING)))
        output = function(*args, **kwargs)
        for part in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(part, Tensor):
                self._made[id(part)] = (weakref.ref(part), place)
        return output

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
        return -id(tensor) if isinstance(tensor, nn.Parameter) else -1


@contextlib.contextmanager
def program() -> Iterator[list[tuple[object, ...]]]:
    """What the model calls in the passes of this thread inside.

    A network that calls the same functions for images of another size has the same graph there.
    """
    before, _RECORDING.program = getattr(_RECORDING, "program", None), Program()
    try:
        yield _RECORDING.program.calls
    finally:
        _RECORDING.program = before


def _called(model: nn.Module, images: Tensor) -> object:
    """What the model gives for a copy of the images, which it may change."""
    recorded: Program | None = getattr(_RECORDING, "program", None)
    if recorded is None:
        return model(images.clone())
    with intercepted(recorded.record):
        return model(images.clone())


@contextlib.contextmanager
def _unrecorded() -> Iterator[None]:
    """What a hook of contrex calls is none of the model's program."""
    recorded: Program | None = getattr(_RECORDING, "program", None)
    if recorded is None:
        yield
        return
    recorded.is_paused = True
    try:
        yield
    finally:
        recorded.is_paused = False


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a module in an observed pass: its output without a graph, and where that and its input are in the
    graph. None stands for what is no tensor, or not in the graph."""

    module: nn.Module
    output: Tensor | None = None
    edge: Edge | None = None
    source: Edge | None = None
    source_shape: torch.Size | None = None
    is_alias: bool = False
    """Whether it gave memory that it had got."""

    @property
    def shape(self) -> torch.Size | None:
        """That of the output."""
        return None if self.output is None else self.output.shape


def observe(model: nn.Module, images: Tensor, *, is_recorded: bool = True) -> tuple[Tensor, Tensor, Sequence[Run]]:
    """A plain pass, recorded from the pixels on: the images in its graph, the logits, and each run of each module.

    Where a module gives the very memory it got (an identity, an in-place ReLU, a view) the rest of the model gets a
    view of it. So the graph tells those who go on with what the module gave from those who use its input, and a change
    in place still reaches both.
    """
    visible = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    if not visible:
        raise scripted(f"{type(model).__name__} is")
    pixels = images.detach().clone().requires_grad_()
    runs: list[Run] = []
    owner = threading.get_ident()

    def see(module: nn.Module, inputs: tuple[object, ...], output: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        if not isinstance(output, Tensor):
            runs.append(Run(module))
            return None
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        source = tensors[0] if len(tensors) == 1 else None
        is_alias = output.requires_grad and any(_share_memory(output, value) for value in tensors)
        given = output.view_as(output) if is_alias else output
        at_source, shape = (None, None) if source is None else (edge_of(source), source.shape)
        runs.append(Run(module, given.detach(), edge_of(given), at_source, shape, is_alias))
        return given if is_alias else None

    with torch.set_grad_enabled(is_recorded), _hooked(visible, see):
        logits = _logits(_called(model, pixels), model, images)
    return pixels, logits, runs


def _share_memory(one: Tensor, other: Tensor) -> bool:
    try:
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() != 0
    except (NotImplementedError, RuntimeError):  # tensors of a kind that has no memory of its own
        return False


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
            f"`head` {layer_name(head, model)!r} must run once in a forward pass, it ran {len(seen)} times: choose the "
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


@contextlib.contextmanager
def exchanged(modules: Sequence[nn.Module], exchange: Callable[[object], object]) -> Iterator[None]:
    """What `modules` give in this thread is `exchange(output)` instead."""
    owner = threading.get_ident()

    def give(module: nn.Module, inputs: object, output: object) -> object:
        return exchange(output) if threading.get_ident() == owner else None

    with _hooked(modules, give):
        yield


def resolution(model: nn.Module, logits: Tensor) -> float:
    """The step between 1 and the next number in the coarsest numbers that a pass of `model` to `logits` has.

    Accelerators may multiply float32 as TF32, which keeps ten bits.
    """
    kind = logits.device.type
    dtypes = {logits.dtype, *(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())}
    dtypes |= {torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set()
    step = max(torch.finfo(dtype).eps for dtype in dtypes)
    return step if kind == "cpu" or logits.dtype == torch.float64 else max(step, 2**-10)


def change_relu_rule(logits: Tensor, rule: Callable[[Tensor, Tensor], Tensor], copies: Sequence[Node | None]) -> None:
    """Every ReLU in the graph behind `logits` sends back `rule(gradient it would send, gradient it received)`.

    The rule is set in the graph of this one pass, not in the model, and goes with it; so modules, functions and
    in-place ReLUs are caught alike. ReLU6 counts, and so does any hardtanh, clamp or threshold that clips at the number
    0. Nodes that stand for some function on part of a tensor must be among `copies`, the nodes known to be no ReLU.

    Raises:
        LayerError: there is no ReLU, or a part of the graph hides what it runs (compiled, scripted, checkpointed).
    """
    num, known = 0, set(copies)  # holds the nodes, whose Python side would be made anew
    for node in graph_nodes(logits):
        if _hides_functions(node) and node not in known:
            raise LayerError(
                f"the model runs {node.name().rpartition('::')[2]}, which hides its ReLUs: explain it without "
                "torch.compile, activation checkpointing, scripted or traced parts and autograd functions of its own "
                "inside."
            )
        if _sends_back_as_relu(node):
            node.register_hook(lambda sent, received: tuple(rule(grad, received[0]) for grad in sent))
            num += 1
    if not num:
        raise LayerError(
            "the model has no ReLU whose backward rule could be changed, or runs it without gradients: use the plain "
            "Gradient."
        )


def _hides_functions(node: Node) -> bool:
    """Whether a node may stand for any function: one written in Python or C++, a scripted graph, a change of a view."""
    name = node.name()
    is_foreign = name.startswith("torch::jit") or "CppNode" in name or "CopySlices" in name
    return is_foreign or isinstance(node, torch.autograd.function.BackwardCFunction)


_CLIPPING = {
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
    "Threshold": "_saved_threshold",
}
"""Nodes that send nothing back below a number, and where they keep it."""


def _sends_back_as_relu(node: Node) -> bool:
    name = node.name().partition("Backward")[0]
    low = getattr(node, _CLIPPING[name], None) if name in _CLIPPING else None
    return name == "Relu" or (not isinstance(low, Tensor) and low == 0)


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

    def unrecorded(*given: object) -> object:
        with _unrecorded():
            return hook(*given)

    handles = []
    try:
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                raise scripted("`layer` is in")
            handles.append(module.register_forward_hook(unrecorded))  # one by one: those set so far must go on an error
            OWN_HOOKS.add(handles[-1].id)
        yield
    finally:
        for handle in handles:
            handle.remove()
            OWN_HOOKS.discard(handle.id)


def _features(site: Site, output: object, images: Tensor) -> Features:
    wanted = site.shape if site.shape is not None or not isinstance(output, Tensor) else output.shape[1:]
    shape = (len(images), *(wanted or ()))
    if not isinstance(output, Tensor) or output.shape != shape:
        what = f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise LayerError(
            f"`layer` {site.name!r} must give {list(shape)} for images {list(images.shape)}, as it does for one image "
            f"of their size, it gives {what}: choose another."
        )
    map_shape(site.maps, output)
    return Features(output, site.maps, site.module)


def map_shape(maps: Reshape, output: Tensor) -> torch.Size:
    """The shape `[N,C,h,w]` of the maps that are read from a layer's output, or `LayerError`."""
    shape = maps(output.detach()).shape
    if len(shape) != 4 or shape[0] != len(output):
        raise LayerError(f"`reshape` must give [{len(output)},C,h,w], it gave {list(shape)} for {list(output.shape)}.")
    return shape


R = TypeVar("R")


def only_run(seen: Sequence[R], layer: nn.Module, model: nn.Module) -> R:
    """The one run of a layer in a pass, or `LayerError`."""
    if len(seen) == 1:
        return seen[0]
    name = layer_name(layer, model)
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
            f"`head` {layer_name(head, model)!r} must get one row of features per image, [{len(images)},D], it gets "
            f"{got}: choose the layer that gives the logits."
        )
    return rows


def _logits(output: object, model: nn.Module, images: Tensor) -> Tensor:
    logits = read_logits(output, model, len(images))
    logits = logits.clone() if logits.is_inference() else logits  # a forward under inference mode
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
