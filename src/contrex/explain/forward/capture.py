"""Running a model for an explanation without leaving a trace in it. The only file of contrex with hooks.

The model is shared with whoever else holds it, so everything is put back also when the call raises: hooks, train / eval
flags, the random state. Several threads may explain one model: passes take turns, and a hook ignores the threads that
did not set it. A model that changes its input in place changes a copy.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from contrex.errors import LayerError
from contrex.explain.forward.diagnosis import check_gradient, scripted
from contrex.explain.forward.functions import called, unrecorded
from contrex.models import eval_mode
from contrex.models.beside import call
from contrex.models.compiled import uncompiled
from contrex.models.graph import Edge, edge_of
from contrex.models.layers import Reshape, Site, layer_name
from contrex.models.outputs import channels_of_maps, read_logits

FULL_PRECISION = (torch.float32, torch.float64)

OWN_HOOKS: set[int] = set()
"""The numbers of the hooks that are set here right now; one of anybody else's may make another network of a model."""

# One lock for each model, held weakly: to have been explained must not keep a model alive. It is reentrant, so that a
# thread may explain a model inside a call about the same model.
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Features:
    """What `layer` gave: `output`, the tensor in the graph, and `maps(output)` or of its gradient, `[N,C,h,w]`.

    Those of signals and volumes are read so too; `grid` has the sides that they have (None for the pixels).
    """

    output: Tensor
    maps: Reshape
    layer: nn.Module | None = None
    grid: tuple[int, ...] | None = None
    run: int | None = None
    """Which run of the layer it was; None where there is one."""

    def unflattened(self, maps: Tensor) -> Tensor:
        """Maps `[...,h,w]` that were made of those of the layer, in its grid."""
        grid = maps.shape[-2:] if self.grid is None or len(self.grid) == 2 else self.grid
        return maps.reshape(*maps.shape[:-2], *grid)


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

    def at_grid(self, maps: Tensor) -> Tensor:
        """Maps `[N,M,h,w]` in the grid of the explained layer, of signals and volumes too."""
        return self.features[0].unflattened(maps) if len(self.features) == 1 else maps


def forward(model: nn.Module, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
    """Run `model` on `images` and keep what `layers` give; no layers stand for the images.

    `graph` says what autograd records: `"none"`; `"head"` - only what follows the first layer, so the part before it
    costs no memory; `"head, twice"`, to be differentiated twice; or `"all"`, for a loss on the explanation. The rest of
    the model gets a clone of each output, so an in-place ReLU behind a layer cannot change what was kept.

    With the last two, attention behind the first layer runs as the products that it is made of: the gradient of torch's
    fused kernels has no gradient.
    """
    if not layers:
        return _forward_from_pixels(model, images, graph)
    seen: list[list[Features]] = [[] for _ in layers]
    num_runs = dict.fromkeys((site.module for site in layers), 0)
    owner = threading.get_ident()  # the hooks are the model's, and other threads may use it

    def keep(module: nn.Module, inputs: object, output: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        run, num_runs[module] = num_runs[module], num_runs[module] + 1
        place = next((i for i, one in enumerate(layers) if one.module is module and one.run in (None, run)), None)
        if place is None:  # another run of the layer, which stays as it is
            return None
        is_first = not any(seen)
        features = _features(layers[place], output, images)
        starts_graph = (graph.startswith("head") and is_first) or not features.output.requires_grad
        if graph != "none" and starts_graph:
            features = replace(features, output=features.output.detach().requires_grad_())
        # Gradients are switched on here, in the middle of the forward pass, and off again when it is over: so nothing
        # before the layer is recorded. Were they on from the start, the whole trunk would stay in memory.
        torch.set_grad_enabled(graph != "none")
        if graph in ("head, twice", "all") and is_first:
            behind.enter_context(sdpa_kernel(SDPBackend.MATH))
        seen[place].append(features)
        return features.output.clone()

    with contextlib.ExitStack() as behind, torch.set_grad_enabled(graph == "all"), hooked(list(num_runs), keep):
        logits = read_output(called(model, images), model, images)
    features = [only_run(runs, site.module, model) for runs, site in zip(seen, layers, strict=True)]
    if graph != "none":
        check_gradient(logits, f"`layer` {layers[0].name!r}", model)
    return Pass(images, logits, features)


def _forward_from_pixels(model: nn.Module, images: Tensor, graph: str) -> Pass:
    """Run `model` on `images` and record, if anything, from the images on."""
    if graph != "none":
        # Detached first: switching `requires_grad` on in the caller's own tensor would be a trace.
        images = images if images.requires_grad else images.detach().requires_grad_()
    products = sdpa_kernel(SDPBackend.MATH) if graph == "all" else contextlib.nullcontext()
    with products, torch.set_grad_enabled(graph != "none"):
        logits = read_output(called(model, images), model, images)
    if graph != "none":
        check_gradient(logits, "`images`", model)
    return Pass(images, logits, [Features(images, lambda pixels: pixels)])


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
        """The shape of the output; None where it is no tensor."""
        return None if self.output is None else self.output.shape


@dataclass(frozen=True, eq=False)
class Plain:
    """A plain pass of `images`: the logits, each run of each module, and the channels of the maps that the network
    returned beside or in place of logits (`map_channels`)."""

    images: Tensor
    logits: Tensor
    runs: Sequence[Run]
    map_channels: set[int]


def observe(model: nn.Module, images: Tensor, *, is_recorded: bool = True) -> Plain:
    """Run a plain pass, recorded from the pixels on.

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

    # Set on every module: it notes where input and output are in the graph, and hands on a view where both are one.
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

    with torch.set_grad_enabled(is_recorded), uncompiled(always=True), hooked(visible, see):
        output = called(model, pixels)
        logits = read_output(output, model, images)
    return Plain(pixels, logits, runs, channels_of_maps(output))


def _share_memory(one: Tensor, other: Tensor) -> bool:
    try:
        # Empty tensors all begin at 0 and share nothing.
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() != 0
    except (NotImplementedError, RuntimeError):  # tensors of a kind that has no memory of its own
        return False


def forward_with(model: nn.Module, images: Tensor, layer: nn.Module, output: Tensor, run: int | None = None) -> Tensor:
    """The logits for `images` when `layer` gives `output` instead of its own, in each of its runs or in one; nothing is
    recorded.

    A single image may stand for many outputs, [n,...] to [n,K], in networks that broadcast what bypasses the layer.
    """
    owner = threading.get_ident()

    # A clone for each pass: what follows the layer may change it in place, and `output` may be used again.
    def put(module: nn.Module, inputs: object, own: object) -> Tensor | None:
        if threading.get_ident() != owner:
            return None
        is_meant = run in (None, next(runs))
        return output.clone() if is_meant else None

    runs = itertools.count()
    with torch.no_grad(), hooked([layer], put):
        return read_output(call(model, images.clone()), model, output)


@contextlib.contextmanager
def watched(modules: Sequence[nn.Module], see: Callable[[nn.Module, object], None]) -> Iterator[None]:
    """Call `see(module, output)` for each pass of `modules` in this thread; a ScriptModule among them is not seen.

    Raises:
        LayerError: there is nothing but ScriptModules.
    """
    owner = threading.get_ident()
    visible = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    if modules and not visible:
        raise scripted(f"{type(modules[0]).__name__} is")

    # It only looks: returning None leaves the module's output as it is.
    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == owner:
            see(module, output)

    with hooked(visible, watch):
        yield


@contextlib.contextmanager
def exchanged(modules: Sequence[nn.Module], exchange: Callable[[object], object]) -> Iterator[None]:
    """Let `modules` give `exchange(output)` instead of their output, in this thread."""
    owner = threading.get_ident()

    # Returning None for the other threads leaves their output as it is.
    def give(module: nn.Module, inputs: object, output: object) -> object:
        return exchange(output) if threading.get_ident() == owner else None

    with hooked(modules, give):
        yield


def resolution(model: nn.Module, logits: Tensor) -> float:
    """The step between 1 and the next number in the coarsest numbers that a pass of `model` to `logits` has.

    Accelerators may multiply float32 as TF32, which keeps ten bits.
    """
    kind = logits.device.type
    dtypes = {logits.dtype, *(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())}
    dtypes |= {torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set()
    step = max(torch.finfo(dtype).eps for dtype in dtypes)
    # 2^-10: the ten bits of TF32, assumed on every accelerator, whether it is switched on or not.
    return step if kind == "cpu" or logits.dtype == torch.float64 else max(step, 2**-10)


@contextlib.contextmanager
def turn(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread runs an explanation of this model."""
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock:
        yield


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put the model into eval mode, and afterwards every module's own mode and the random state back."""
    devices = [device] if device.type == "cuda" else []
    # A network may draw in eval mode too. The caller's next random number must not depend on an explanation before it.
    with eval_mode(model), torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def hooked(modules: Sequence[nn.Module], hook: Callable[..., object], *, before: bool = False) -> Iterator[None]:
    """Call `hook(module, inputs, output)` after the forward of each module, for a while; what it returns, if anything,
    is what the module gives. What it calls is not recorded as the model's own (`functions.program`). With `before` it
    is `hook(module, inputs)`, and what it returns is what the module gets."""

    def alone(*given: object) -> object:
        with unrecorded():
            return hook(*given)

    handles = []
    try:
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                raise scripted("`layer` is in")
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(alone))  # one by one: those set so far must go on an error
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
    return Features(output, site.maps, site.module, site.grid, site.run)


def map_shape(maps: Reshape, output: Tensor) -> torch.Size:
    """The shape `[N,C,h,w]` of the maps that are read from a layer's output, or `LayerError`."""
    shape = maps(output.detach()).shape
    if len(shape) != 4 or shape[0] != len(output):
        raise LayerError(f"`reshape` must give [{len(output)},C,h,w], it gave {list(shape)} for {list(output.shape)}.")
    return shape


R = TypeVar("R")


def only_run(seen: Sequence[R], layer: nn.Module, model: nn.Module, run: int | None = None) -> R:
    """The only run of a layer in a pass, or the one of this number.

    Raises:
        LayerError: it ran never, several times, or not so often.
    """
    if run is None and len(seen) == 1:
        return seen[0]
    name = layer_name(layer, model)
    if run is not None and -len(seen) <= run < len(seen):
        return seen[run]
    runs = ", ".join(repr(f"{name}:{number}") for number in range(len(seen)))
    if run is not None and seen:
        raise LayerError(f"`layer` '{name}:{run}' is no run of it: it ran {len(seen)} times in one pass, {runs}.")
    if not seen:
        raise LayerError(f"`layer` {name!r} did not run in the forward pass: choose one that does.")
    raise LayerError(
        f"`layer` {name!r} ran {len(seen)} times in one pass, so its map is ambiguous: name one run, {runs} (the "
        f"last is {name + ':-1'!r}), or choose another."
    )


def read_output(output: object, model: nn.Module, images: Tensor) -> Tensor:
    logits = read_logits(output, model, len(images))
    logits = logits.clone() if logits.is_inference() else logits  # a forward under inference mode
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
