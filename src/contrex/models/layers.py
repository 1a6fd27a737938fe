"""Finding the layer to explain, in any classifier."""

from __future__ import annotations

import re
from collections import Counter

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrex.errors import LayerError, unknown_name

Layer = None | str | nn.Module

_REPEATS = re.compile(r"(Pool(ing)?|Dropout)\d?d?$|^Identity$")
"""Class names of layers that pass on, in part or whole, the map before them."""


def unwrap(model: nn.Module) -> nn.Module:
    """The classifier inside `torch.compile`, `DistributedDataParallel` and `DataParallel`.

    Hooks do not run inside compiled code and gathering wrappers split batches, so explainers work on the plain module;
    it shares its parameters with the wrapper.
    """
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            model = model.module
        elif isinstance(original := getattr(model, "_orig_mod", None), nn.Module):
            model = original
        else:
            return model


def find_layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    """The submodule that `layer` names, or `layer` itself when it is a module of `model`.

    Raises:
        LayerError: the module belongs to another model.
        UnknownNameError: no module has that name; the message lists the nearest ones.
    """
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        if all(layer is not module for module in model.modules()):
            raise LayerError(
                f"`layer` must be a module of {type(model).__name__}, got a foreign {type(layer).__name__}."
            )
        return layer
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not layer or layer not in modules:
        raise unknown_name(f"`layer` of {type(model).__name__}", layer, _nearby_names(modules, layer))
    return modules[layer]


class FeatureMapFinder:
    """Watches one forward pass and keeps the last feature map before the classifier.

    The last module to finish with an output `[N,C,h,w]`, h w > 1, wins; among nested modules that is the outermost.
    Left out are pooling and dropout layers (they repeat what came before), maps with one channel per class (they are
    the classifier), modules that run several times (their map is ambiguous), and maps whose shape shows that the
    channels come last (they are token grids: name the layer).
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        self.image_size = image_size
        self._candidates: list[tuple[nn.Module, int]] = []

    def see(self, module: nn.Module, output: object) -> None:
        """Consider the output of `module`."""
        if not isinstance(output, Tensor) or output.ndim != 4 or _REPEATS.search(type(module).__name__):
            return
        if output.shape[2] * output.shape[3] > 1 and channels_first(output, self.image_size):
            self._candidates.append((module, output.shape[1]))

    def layer(self, model: nn.Module, num_classes: int) -> nn.Module:
        """The layer found, or `LayerError`."""
        runs = Counter(module for module, _ in self._candidates)
        for module, channels in reversed(self._candidates):
            if channels != num_classes and module is not model and runs[module] == 1:
                return module
        raise LayerError(
            f"no feature map [N,C,h,w] was found before the classifier of {type(model).__name__}: "
            "pass `layer=` the name of a module that gives one (transformers give tokens, not maps)."
        )


def channels_first(output: Tensor, image_size: tuple[int, int]) -> bool:
    """Whether `[N,C,h,w]` fits an image of this size: h / w is the image's H / W, up to one cell of rounding."""
    (height, width), (h, w) = image_size, output.shape[2:]
    return abs(h * width - w * height) <= max(height, width)


def _nearby_names(modules: dict[str, nn.Module], wanted: str) -> list[str]:
    """The names worth listing: all modules as deep as the one asked for."""
    depth = wanted.count(".") if wanted else 0
    return [name for name in modules if name and name.count(".") <= depth]
