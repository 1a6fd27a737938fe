"""Reading a layer's output as feature maps `[N,C,h,w]`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from contrex.models.axes import ROLES, SIDES, Axes, Axis, Factor, Foreign, Known, Lost, grid, is_cut_off, is_in_grid

PREFIX_TOKENS = (0, 1, 2, 4, 5, 8, 9)
"""How many class, distillation and register tokens may stand before the grid: 4 or 8 registers, with or without a class
token, or a class token with or without a distillation token."""

_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
"""Modules whose output is [N,C,h,w] where no graph tells (a network that runs without gradients)."""


@dataclass(frozen=True)
class Reading:
    """Maps from outputs of one shape: axes are cut, split into `factors`, moved into `order` and joined.

    `starts` tells how many entries to leave out before the factors of each axis but the first. Maps of signals have a
    single row, those of volumes the rows of all `depth` slices below each other; `grid` tells their sides.
    """

    starts: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    num_channels: int
    height: int
    width: int
    rank: int = 2
    depth: int = 1

    def __call__(self, output: Tensor) -> Tensor:
        for axis, (start, sizes) in enumerate(zip(self.starts, self.factors, strict=True), start=1):
            if math.prod(sizes) < output.shape[axis]:
                output = output.narrow(axis, start, math.prod(sizes))
        split = output.reshape(len(output), *[size for sizes in self.factors for size in sizes])
        return split.permute(0, *self.order).reshape(len(output), self.num_channels, self.height, self.width)

    @property
    def grid(self) -> tuple[int, ...]:
        """The sides of the maps: of signals one, of pictures rows and columns, of volumes depth, rows and columns."""
        return (self.depth, self.height // self.depth, self.width)[3 - self.rank :]

    @property
    def has_prefix(self) -> bool:
        """Whether tokens without a place stand before the grid."""
        return any(self.starts)

    @property
    def is_plain_grid(self) -> bool:
        """Whether rows, columns and channels are an axis each, so that grids of other sizes are read alike."""
        is_plain = [len(sizes) for sizes in self.factors] == [1, 1, 1] and not self.has_prefix
        return self.rank == 2 and is_plain

    def of_any_size(self, output: Tensor) -> Tensor:
        """Read maps from an output of another size like this one."""
        return output.permute(0, *self.order)


def reading(axes: Axes, rank: int = 2) -> Reading | None:
    """How to read an output with these axes, the first of which are the images; None where it is no grid of cells.

    A grid is one axis of tokens or one for each side, beside one of channels, and has more than one cell.

    >>> tokens = Axis((Factor("h", 2), Factor("w", 3)), before=1)
    >>> found = reading((Axis((Factor("n", 1),)), tokens, Axis((Factor("c", 8),))))
    >>> found.height, found.width, found.starts
    (2, 3, (1, 0))
    """
    if not _may_be_maps(axes, rank):
        return None
    split = [_factors(axis) for axis in axes[1:]]
    parts = [(place, factor) for place, factors in enumerate(split) for factor in factors]
    in_grid = [is_in_grid(axis) for axis in axes[1:]]
    slices, rows, columns = (_ordered(role, parts, in_grid) for role in "dhw")
    depth, height, width = (_length([parts[i][1] for i in places]) for places in (slices, rows, columns))
    channels = [i for i, (place, _) in enumerate(parts) if not in_grid[place]]
    if depth * height * width < 2 or not channels or not _is_one_whole(axes[1:], in_grid):
        return None
    return Reading(
        starts=tuple(axis.before for axis in axes[1:]),
        factors=tuple(tuple(factor.size for factor in factors) for factors in split),
        order=tuple(1 + i for i in (*channels, *slices, *rows, *columns)),
        num_channels=math.prod(parts[i][1].size for i in channels),
        height=depth * height,
        width=width,
        rank=rank,
        depth=depth,
    )


def _may_be_maps(axes: Axes, rank: int) -> bool:
    """Whether the first axis is the images, the others may be grid and channels, and nothing is cut off."""
    return len(axes) in (3, 4, rank + 2) and not is_cut_off(axes) and not set(SIDES) & set(axes[0].roles)


def _is_one_whole(axes: Sequence[Axis], in_grid: Sequence[bool]) -> bool:
    """Whether at most one axis beside those of the grid has more than one entry, and nothing stands beside these."""
    others = [axis for axis, is_grid in zip(axes, in_grid, strict=True) if not is_grid and axis.size > 1]
    return len(others) < 2 and all(axis.is_whole for axis in others)


def _factors(axis: Axis) -> Sequence[Factor]:
    """The factors of an axis, at least one."""
    return [f if isinstance(f, Factor) else Factor("t", f.size) for f in axis.factors] or [Factor("", 1)]


def _ordered(role: str, parts: Sequence[tuple[int, Factor]], in_grid: Sequence[bool]) -> list[int]:
    """Which parts of the grid are rows (or columns), the slowest first."""
    found = [i for i, (place, factor) in enumerate(parts) if in_grid[place] and factor.role == role]
    # The part with the largest stride moves slowest: joined in this order rows come out from top to bottom.
    return sorted(found, key=lambda i: -parts[i][1].stride)


def _length(factors: Sequence[Factor]) -> int:
    """The number of rows (or columns) that factors, the slowest first, are together; 0 where some are missing."""
    if factors and not factors[0].is_coarsest:
        return 0
    for slow, fast in itertools.pairwise(factors):
        if slow.stride != fast.size * fast.stride:
            return 0
    return math.prod(factor.size for factor in factors)


def possible_readings(
    known: Known, shape: Sequence[int], images: Sequence[int], module: nn.Module, model: nn.Module
) -> list[Reading]:
    """The readings that an output of this `shape` has for a batch of shape `images`: one, none, or several.

    What is known of its axes decides. Where nothing is, a module that is a convolution or its norm gives channels
    first, tokens are what the model says they are, and a grid must have the image's proportions, up to one cell.
    """
    rank = len(images) - 2
    if isinstance(known, (Foreign, Lost)) or len(shape) not in (3, 4, rank + 2) or shape[0] != images[0]:
        return []
    if isinstance(known, tuple):
        return _all([known], rank)
    if rank != 2:
        is_first = isinstance(module, _CHANNELS_FIRST) and len(shape) == len(images)
        return _all([grid(ROLES[len(shape)], shape)] if is_first else [], rank)
    if len(shape) == 3:
        return _all(_declared_tokens(shape, (images[2], images[3]), model))
    first, last = grid("nchw", shape), grid("nhwc", shape)
    if isinstance(module, _CHANNELS_FIRST):
        return _all([first])
    fits = (_has_proportions(shape[2:], images[2:]), _has_proportions(shape[1:3], images[2:]))
    return _all([axes for axes, is_one in zip((first, last), fits, strict=True) if is_one])


def _all(candidates: Sequence[Axes], rank: int = 2) -> list[Reading]:
    return [found for axes in candidates if (found := reading(axes, rank)) is not None]


def _has_proportions(grid: Sequence[int], image: Sequence[int]) -> bool:
    """Whether h / w is the image's H / W, up to one cell of rounding."""
    return abs(grid[0] * image[1] - grid[1] * image[0]) <= max(image)


def _declared_tokens(shape: Sequence[int], image_size: tuple[int, int], model: nn.Module) -> list[Axes]:
    """The axes of tokens [N,T,D] if the model itself says how many of which there are."""
    for height, width, prefix in _declarations(image_size, model):
        if prefix + height * width == shape[1]:
            tokens = Axis((Factor("h", height), Factor("w", width)), before=prefix)
            return [(Axis((Factor("n", shape[0]),)), tokens, Axis((Factor("c", shape[2]),)))]
    return []


def _declarations(image_size: tuple[int, int], model: nn.Module) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and prefix tokens, by timm's attributes and by the configuration of transformers' models."""
    height, width = image_size
    for module in model.modules():
        prefix, embedding = getattr(module, "num_prefix_tokens", None), getattr(module, "patch_embed", None)
        if isinstance(prefix, int) and (grid := getattr(embedding, "grid_size", None)):
            dynamic = getattr(embedding, "dynamic_feat_size", None)
            rows, columns = dynamic(image_size) if callable(dynamic) else grid
            yield int(rows), int(columns), prefix
        patch = getattr(getattr(module, "config", None), "patch_size", None)
        if isinstance(patch, int) and patch > 0:
            registers = getattr(module.config, "num_register_tokens", 0) or 0
            yield from ((height // patch, width // patch, number + registers) for number in (1, 0, 2))


def token_grids(num_tokens: int, image_size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Every grid of the image's proportions that so many tokens may be: (prefix tokens, height, width).

    >>> token_grids(197, (224, 224)), token_grids(25, (32, 32))
    ([(1, 14, 14)], [(0, 5, 5), (9, 4, 4)])
    """
    height, width = image_size
    found = []
    for prefix in PREFIX_TOKENS:
        cells = num_tokens - prefix
        h = round(math.sqrt(max(cells, 0) * height / width))
        if cells > 1 and h > 0 and cells % h == 0 and h * width == cells // h * height:
            found.append((prefix, h, cells // h))
    return found
