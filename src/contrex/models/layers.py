"""Finding the layer to explain, in any classifier, and reading its output as feature maps."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrex.errors import LayerError, unknown_name

Layer = None | str | nn.Module
Reshape = Callable[[Tensor], Tensor]
"""From a layer's output to feature maps `[N,C,h,w]`; it only moves and drops elements."""

_NO_MAPS = re.compile(r"(Pool(ing)?|Dropout)\d?d?$|^Identity$|^Softmax")
"""Class names of layers that pass on, in part or whole, the map before them, or give attention weights."""
_NORM = re.compile(r"Norm")
"""Class names of the layers that are considered among those that give tokens."""
_PREFIX_TOKENS = (0, 1, 2, 4, 5, 8, 9)
"""How many class, distillation and register tokens may stand before the grid: 4 or 8 registers, with or without a class
token, or a class token with or without a distillation token."""


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
    if not isinstance(layer, str) or not layer or layer not in modules:
        raise unknown_name(f"`layer` of {type(model).__name__}", layer, _nearby_names(modules, str(layer)))
    return modules[layer]


# --- outputs as feature maps ----------------------------------------------------------------------------------------


def feature_maps(output: object, image_size: tuple[int, int], num_images: int) -> Reshape | None:
    """How a layer's output becomes feature maps `[N,C,h,w]`, or None when it is none.

    Understood are `[N,C,h,w]`, channels-last `[N,h,w,C]`, and tokens `[N,T,D]` in row order behind class, distillation
    or register tokens. The grid must have the image's proportions (up to one cell of rounding where it is explicit) and
    more than one cell; a first axis other than N (windows, attention heads) is none.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point() or len(output) != num_images:
        return None
    if output.ndim == 4:
        if _is_grid(output.shape[2], output.shape[3], image_size):
            return _as_it_is
        if _is_grid(output.shape[1], output.shape[2], image_size):
            return _channels_to_front
    if output.ndim == 3:
        return token_grid(output.shape[1], image_size)
    return None


@dataclass(frozen=True)
class TokenGrid:
    """Tokens `[N,T,D]` as maps `[N,D,h,w]`: the first `prefix` tokens are dropped, the others are rows of a grid."""

    prefix: int
    height: int
    width: int

    def __call__(self, tokens: Tensor) -> Tensor:
        grid = tokens[:, self.prefix :]
        return _channels_to_front(grid.reshape(len(grid), self.height, self.width, grid.shape[2]))


def token_grid(num_tokens: int, image_size: tuple[int, int]) -> TokenGrid | None:
    """The grid with the fewest tokens before it whose proportions are the image's.

    >>> token_grid(197, (224, 224)), token_grid(201, (224, 224))
    (TokenGrid(prefix=1, height=14, width=14), TokenGrid(prefix=5, height=14, width=14))
    """
    height, width = image_size
    for prefix in _PREFIX_TOKENS:
        cells = num_tokens - prefix
        h = round(math.sqrt(max(cells, 0) * height / width))
        if cells > 1 and h > 0 and cells % h == 0 and h * width == cells // h * height:
            return TokenGrid(prefix, h, cells // h)
    return None


def _is_grid(h: int, w: int, image_size: tuple[int, int]) -> bool:
    """Whether h / w is the image's H / W, up to one cell of rounding, and there is more than one cell."""
    height, width = image_size
    return h * w > 1 and abs(h * width - w * height) <= max(height, width)


def _as_it_is(output: Tensor) -> Tensor:
    return output


def _channels_to_front(output: Tensor) -> Tensor:
    return output.movedim(-1, 1)


# --- the automatic layer --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Candidate:
    """A module that gave feature maps; `mean` [K or C] is that of its channels over the grid of the only image."""

    module: nn.Module
    mean: Tensor
    gives_tokens: bool


class FeatureMapFinder:
    """Watches the forward pass of one image and lists the feature maps before the classifier, the last one first.

    Among nested modules the outermost comes first. Left out are pooling and dropout layers (they repeat what came
    before), maps whose mean over the grid is the logits (they are the classifier) with those of as many channels
    right before them, and modules that run several times (their map is ambiguous). Of modules that give tokens or
    channels-last grids only norms count: they see every path of a block.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        self.image_size = image_size
        self._seen: list[Candidate] = []
        self._runs: Counter[nn.Module] = Counter()

    def see(self, module: nn.Module, output: object) -> None:
        """Consider the output of `module`."""
        name = type(module).__name__
        self._runs[module] += 1
        reshape = None if _NO_MAPS.search(name) else feature_maps(output, self.image_size, 1)
        if reshape is None or not isinstance(output, Tensor):
            return
        gives_tokens = reshape is not _as_it_is
        if not gives_tokens or _NORM.search(name):
            self._seen.append(Candidate(module, reshape(output)[0].mean((1, 2)).float(), gives_tokens))

    def candidates(self, model: nn.Module, logits: Tensor) -> Sequence[Candidate]:
        """The feature maps found, the last one first, or `LayerError`; `logits` [1,K] are those of the pass."""
        found: list[Candidate] = []
        is_classifier = False
        for candidate in reversed(self._seen):
            if not found and len(candidate.mean) == logits.shape[1]:
                mean, wanted = candidate.mean, logits[0].to(candidate.mean)
                is_classifier = is_classifier or torch.allclose(mean, wanted, rtol=1e-3, atol=1e-3)
                if is_classifier:
                    continue
            if candidate.module is not model and self._runs[candidate.module] == 1:
                found.append(candidate)
        if not found:
            raise LayerError(
                f"no feature map was found before the classifier of {type(model).__name__}: pass `layer=` the name of "
                "a module that gives [N,C,h,w], [N,h,w,C] or tokens [N,T,D], with `reshape=` where T does not tell."
            )
        return found


def _nearby_names(modules: dict[str, nn.Module], wanted: str) -> list[str]:
    """The names worth listing: all modules as deep as the one asked for."""
    depth = wanted.count(".") if wanted else 0
    return [name for name in modules if name and name.count(".") <= depth]
