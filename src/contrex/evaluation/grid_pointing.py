"""The protocol that shows the network grids of images that it knows, and asks where it sees each class."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from contrex import ranks, settings
from contrex.data.streams import stream
from contrex.data.views.composites import in_grid
from contrex.data.views.evaluation import Views
from contrex.data.views.squares import central_square, pixels, view_sizes
from contrex.errors import ArgumentError
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import GridPointingGame, grid_pointing_game
from contrex.ops import scores


@dataclass(frozen=True, order=True)
class Known:
    """An image that has been judged: its place in the set, its label, and how probable the network finds that where it
    predicts it (0 where it does not)."""

    index: int
    label: int
    confidence: float


class GridPointing(Protocol):
    """Grid pointing game: how much of a class' heat lies on its image among images of other classes."""

    name = "grid_pointing_game"
    title = "Grid pointing game"
    min_classes = 4

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.options = bench.options.grid_pointing
        self.check_classes(self.name, bench.options, len(bench.subject.images.classes))
        self.metric = GridPointingGame(size=self.options.size)
        self.metrics = [self.metric]
        self._known: list[Known] = []
        self._num_grids = 0
        self._lacking = ""

    @classmethod
    def check_classes(cls, name: str, options: settings.Evaluation, num_classes: int) -> None:
        """Refuse a grid with more cells than there are classes."""
        size = options.grid_pointing.size
        if num_classes < size**2:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, whose grid of {size} x {size} needs {size**2} classes, and there "
                f"are {num_classes}: take a smaller `evaluation.grid_pointing.size`."
            )

    def meaning(self) -> str:
        size = self.options.size
        return (
            f"How much of the positive heatmap of a class lies on its own image in a grid of {size} x {size} images of "
            f"as many classes, all of which the network predicts rightly with a probability of at least "
            f"{self.options.least_confidence:g} when they are alone. A map that is the same everywhere has "
            f"{100 / size**2:.3g} %."
        )

    def judge(self, group: Group) -> Sequence[int]:
        predicted = scores.predicted(group.logits, self.bench.options.task)
        sure = scores.probability(group.logits.double(), predicted, self.bench.options.task)
        sure = sure.where(predicted == group.labels, 0.0)
        self._known += map(Known, group.indices, group.labels.tolist(), sure.tolist())
        return ()  # which images are in a grid is known once all have been seen

    def finish(self) -> Sequence[int]:
        known = sorted(itertools.chain.from_iterable(ranks.gathered(self._known)))
        try:
            grids = grids_of(known, self.options, seed=self.bench.options.seed)
        except ArgumentError as error:  # told in the record, with all that has been measured beside it
            grids, self._lacking = [], str(error)
        self._num_grids = len(grids)
        at_once = max(self.bench.chunk // self.options.size**2, 1)
        passes = [grids[start : start + at_once] for start in range(0, len(grids), at_once)]
        # Each process takes its share of the passes, which are the same ones as in one process, bit by bit; any process
        # may have judged their images.
        first, last = (math.ceil(len(passes) * n / ranks.world_size()) for n in (ranks.rank(), ranks.rank() + 1))
        found: dict[int, float] = {}
        for some in passes[first:last]:
            found |= self._values(some)
        values = {index: value for part in ranks.gathered(found) for index, value in part.items()}
        own = [one.index for one in self._known]
        in_grid = torch.tensor([index in values for index in own], dtype=torch.bool, device="cpu")
        self.metric.update(torch.tensor([values.get(index, math.nan) for index in own], dtype=torch.float64), in_grid)
        return own

    def details(self) -> dict[str, Any]:
        words = {**vars(self.options), "num_grids": self._num_grids, "chance": 100 / self.options.size**2}
        lacking = {"lacking": self._lacking} if self._lacking else {}
        return {**self.bench.shared_details("grids"), "explained_class": "each of the grid", **words, **lacking}

    def _values(self, grids: Sequence[Sequence[Known]]) -> dict[int, float]:
        """The share of heat of each image of some grids, by its index."""
        pictures = torch.stack([self._picture(grid) for grid in grids])
        images, size = self.bench.normalise(pictures), (pictures.shape[2], pictures.shape[3])
        classes = torch.tensor([[one.label for one in grid] for grid in grids], device=self.bench.device)
        views = [self._view(grid, picture) for grid, picture in zip(grids, pictures, strict=True)]
        try:
            contrasts = (self.bench.options.contrast,)
            maps = self.bench.explain_classes(images, classes, views, contrasts, pictures="grids")[0]
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:
            if self.options.cells == "shrunk":
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ArgumentError(
                f"the classifier does not take a grid's picture, {size[0]} x {size[1]} pixels ({reason}). For one "
                'of a single input size set `evaluation.grid_pointing.cells` to "shrunk".'
            ) from error
        shares = grid_pointing_game(maps, resized_to=size if self.options.resized else None)
        indices = (one.index for grid in grids for one in grid)
        return dict(zip(indices, shares.flatten().tolist(), strict=True))

    def _picture(self, grid: Sequence[Known]) -> Tensor:
        """The picture of a grid, uint8 [3,H,W], of its images' squares, read once more."""
        resize, size = view_sizes(self.bench.subject.data)
        squares = (self.bench.subject.images.image(one.index) for one in grid)
        tiles = torch.stack([pixels(central_square(square, resize=resize, size=size)) for square in squares])
        picture = in_grid(tiles[None])
        if self.options.cells == "whole":
            return picture[0]
        small = interpolate(picture.float(), size=(size, size), mode="bilinear", antialias=True)
        return small.round().clamp(0, 255).to(torch.uint8)[0]

    def _view(self, grid: Sequence[Known], picture: Tensor) -> Views:
        """What an error calls a grid."""
        paths = ", ".join(self.bench.subject.images.path(one.index) for one in grid)
        return Views(grid[0].index, picture, None, grid[0].label, f"the grid of {paths}")


def grids_of(known: Sequence[Known], options: settings.GridPointing, *, seed: int) -> list[list[Known]]:
    """Grids of images of different classes, each image in one grid at most, the surest of each class first.

    For each grid, as many classes as it has cells are drawn from those that have an image left, as in the published
    code of B-cos networks.

    Raises:
        ArgumentError: there are too few for one grid.
    """
    num_cells, least = options.size**2, max(options.least_confidence, 1e-12)
    waiting: dict[int, list[Known]] = {}
    for one in sorted(known, key=lambda one: (one.confidence, -one.index)):  # the surest is the last, and taken first
        if one.confidence >= least:
            waiting.setdefault(one.label, []).append(one)
    num_classes, num_sure = len(waiting), sum(map(len, waiting.values()))
    draws, grids = stream("grid pointing game", seed), list[list[Known]]()
    while len(grids) < options.num_grids and len(waiting) >= num_cells:
        drawn = draws.choice(np.array(sorted(waiting)), num_cells, replace=False).tolist()
        grids.append([waiting[label].pop() for label in drawn])
        waiting = {label: left for label, left in waiting.items() if left}
    if not grids:
        num_right = sum(one.confidence > 0 for one in known)
        raise ArgumentError(
            f"`evaluation.metrics` has grid_pointing_game, whose grid of {options.size} x {options.size} needs images "
            f"of {num_cells} classes that are predicted rightly with a probability of at least "
            f"{options.least_confidence:g}: of {len(known)} images {num_right} are predicted rightly and {num_sure} so "
            f"surely, of {num_classes} classes. Take more images (`evaluation.limit`), a smaller "
            "`evaluation.grid_pointing.size` or a smaller `evaluation.grid_pointing.least_confidence`."
        )
    return grids
