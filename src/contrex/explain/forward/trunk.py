"""The trunk of a network: what comes before the part that is trained, and gives the same for the same images.

Networks that share it run it once, and what it gives for an image may be kept. Where it ends is read off the graph of
one pass (`Graph.carries`): every path from the logits to the pixels goes through the output of its last layer, before
any trained parameter and not behind the explained layer.

A network goes on from there within an ordinary pass: it gets the first image alone, and the trunk's last layer hands on
what is given instead of its own output. So whatever a network does around its layers, it does; the price is the trunk's
work for one image.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from contrex.explain.forward.capture import FULL_PRECISION, hooked, undisturbed
from contrex.explain.forward.observed import Observed
from contrex.models.layers import find_layer, layer_name
from contrex.models.outputs import model_logits
from contrex.ops.likeness import differ

_TRIED = 4
"""How many layers are tried at most: where one that carries everything does not do, few do."""


def trunk_end(model: nn.Module, images: Tensor, trained: Collection[nn.Parameter], layer: nn.Module) -> str | None:
    """The name of the last layer of the trunk of `model`, None where there is none.

    Args:
        model: a network; it is run in eval mode and left as it was.
        images: `[N,C,H,W]` with N >= 2, normalised, no two alike.
        trained: its parameters that change.
        layer: the explained layer, whose output is behind the trunk, or its end.
    """
    seen = Observed(model, images)
    modules = [run.module for run in seen.runs]
    stop = min([_first_run(model, modules, trained), modules.index(layer) + 1])
    carrying = [
        run.module
        for run in reversed(seen.runs[:stop])
        if modules.count(run.module) == 1 and run.module is not model and seen.graph.carries(run.edge)
    ]
    found = next((module for module in carrying[:_TRIED] if goes_on_from(model, images, module)), None)
    return None if found is None else layer_name(found, model)


def trunk_output(model: nn.Module, images: Tensor, end: str) -> Tensor:
    """What the layer `end` of `model` gives for images, without gradients; what comes behind it is not run."""
    owner = threading.get_ident()

    # The pass is over here: what follows would be computed for nothing.
    def stop(module: nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() == owner:
            raise _Enough(output)

    try:
        with torch.no_grad(), hooked([find_layer(model, end)], stop):
            model(images.clone())
    except _Enough as found:
        if isinstance(found.output, Tensor):
            return found.output
    raise RuntimeError(f"{end} gave no tensor")


@contextlib.contextmanager
def going_on(model: nn.Module, end: str, features: Tensor) -> Iterator[None]:
    """Inside, `model` goes on from `features`, what the layer `end` gave for as many images as it is called with, in
    this thread. A pass that is recorded from the pixels on is an ordinary one."""
    # A clone: what follows may change it in place, and it is used again. The first image alone goes through the trunk.
    with going_on_with(model, end, lambda output: features.clone(), num=len(features), first=1):
        yield


@contextlib.contextmanager
def going_on_with(
    model: nn.Module, end: str, change: Callable[[Tensor], Tensor], *, num: int, first: int
) -> Iterator[None]:
    """Inside, a call of `model` with `num` images takes the `first` of them through the layer `end`, and goes on with
    what `change` makes of its output: a row for each of `num`. In this thread, and as in `going_on`."""
    owner, is_on = threading.get_ident(), [False]

    # Set on the whole model, whose images are the rows of the pass: only some of them go through what comes before.
    def begin(module: nn.Module, inputs: tuple[Tensor, ...]) -> object:
        if threading.get_ident() != owner:
            return None
        images, *rest = inputs
        is_on[0] = len(images) == num and not images.requires_grad
        return (images[:first], *rest) if is_on[0] else None

    # Set on the layer, where the rows of the whole pass come together again.
    def hand_on(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        return change(output) if threading.get_ident() == owner and is_on[0] else None

    with hooked([model], begin, before=True), hooked([find_layer(model, end)], hand_on):
        yield


def goes_on_from(model: nn.Module, images: Tensor, module: nn.Module) -> bool:
    """Whether `model` gives the same logits where it goes on from what `module` gave, its first image alone before."""
    end = layer_name(module, model)
    with torch.no_grad(), undisturbed(model, images.device):
        own = model_logits(model, images)
        try:
            features = trunk_output(model, images, end)
            with going_on(model, end, features):
                again = model_logits(model, images)
        except Exception:  # whatever a network raises that wants all of its images
            return False
    tolerance = 1e-4 if own.dtype in FULL_PRECISION and features.dtype in FULL_PRECISION else 5e-2
    return not bool(differ(again.flatten(), own.flatten(), tolerance))


def any_images(like: Tensor, num: int = 3) -> Tensor:
    """Images to look a network over with, of the size of `like`: the same in each run, and no two alike."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((num, *like.shape[1:]), generator=generator).to(like)


class _Enough(BaseException):
    """Ends a pass with what a layer gave. No Exception, which a network may catch."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def _first_run(model: nn.Module, modules: Sequence[nn.Module], trained: Collection[nn.Parameter]) -> int:
    """The place in a pass of the first module that ends with a trained parameter in it, or in a module around it that
    runs, for parameters that are used without their module."""
    ran, first = set(modules), len(modules)
    own = set(trained)
    for name, parameter in model.named_parameters():
        if parameter in own:
            path = name.split(".")[:-1]
            around = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path), -1, -1)]
            inside = next((module for module in around if module in ran), model)
            parts = set(inside.modules())
            first = min([first, *(place for place, module in enumerate(modules[:first]) if module in parts)])
    return first
