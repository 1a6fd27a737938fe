"""One plain pass of a network, and how what each of its layers gave is read as maps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Plain, Run
from contrex.explain.forward.functions import program
from contrex.explain.forward.runs import Runs
from contrex.models.axes import Axis, Factor, Lost, is_cut_off
from contrex.models.beside import about
from contrex.models.following import Followed
from contrex.models.graph import Graph, as_gradient_edge
from contrex.models.layers import Site
from contrex.models.outputs import what_is_read
from contrex.models.reading import Reading, possible_readings, reading
from contrex.ops.likeness import differ, rounding_scale

_NO_MAPS = re.compile(r"(Pool(ing)?|Dropout)\d?d?$|^Identity$|^Softmax")
"""Class names of layers that pass on, in part or whole, the map before them, or give attention weights."""


class Observed:
    """One forward pass of the first image in eval mode, as the model runs it, with its graph from logits to pixels.

    A network that cannot run a single image of the batch (it adds something of its own to each) runs the whole batch.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model = model
        with program() as functions:
            plain = _plain_pass(model, images)
        self.images, self.logits, self.runs = plain.images, plain.logits, plain.runs
        self._map_channels = plain.map_channels if what_is_read() else set()
        self.functions: Sequence[tuple[object, ...]] = functions
        self.num_images = len(images)

    @property
    def rank(self) -> int:
        """1 for signals, 2 for pictures, 3 for volumes."""
        return self.images.ndim - 2

    @cached_property
    def graph(self) -> Graph:
        """The graph from the logits to the images; empty where the network runs without gradients."""
        return Graph(self.logits, self.images)

    @cached_property
    def runs_of_modules(self) -> Runs:
        """The runs of each module, of which one may be explained."""
        return Runs(self.runs, self.graph)

    @cached_property
    def _axes(self) -> Followed:
        return Followed(self.graph, self.rank)

    def may_be_explained(self, run: Run) -> bool:
        """Whether the kind of a layer and the number of its runs allow to explain it."""
        is_changed_image = run.output is not None and run.output.shape == self.images.shape
        return not (
            run.module is self.model
            or not self.runs_of_modules.is_only_one(run)
            or is_changed_image
            or _NO_MAPS.search(type(run.module).__name__)
        )

    def readings(self, run: Run) -> list[Reading]:
        """How the output of a layer may be read as maps: in one way, in none, or in several."""
        if run.output is None or not run.output.is_floating_point():
            return []
        known = self._axes.axes(run.edge)
        return possible_readings(known, run.output.shape, self.images.shape, run.module, self.model)

    def is_placed(self, run: Run, one: Reading) -> bool:
        """Whether cells lie where the reading says: by rules for each function before, or else by measuring.

        In each corner of the grid the strongest cell must depend most on the pixels around its own place: so a map that
        is flipped, turned or shuffled is found out.
        """
        edge, output = run.edge, run.output
        if edge is None or output is None or (self._axes.axes(edge) is not None and not self._axes.is_presumed(edge)):
            return True
        strength = one(output.detach())[0].abs().sum(0)
        # The number of each entry, read as the maps are read, tells which entries of the output make up a cell.
        entries = one(torch.arange(output.numel(), device=output.device).reshape(output.shape))[0]
        for row, column in _strongest_in_corners(strength):
            cell = entries[:, row, column]
            # Random weights, as the gradients of a plain sum of channels can cancel; seeded, so that a layer is always
            # judged alike.
            weights = torch.randn(len(cell), generator=torch.Generator().manual_seed(0), device="cpu")
            cotangent = torch.zeros_like(output).flatten().index_copy(0, cell, weights.to(output)).view_as(output)
            try:
                (gradient,) = torch.autograd.grad(
                    as_gradient_edge(edge), self.images, cotangent, retain_graph=True, allow_unused=True
                )
            except RuntimeError:  # reentrant checkpointing lets nothing be measured
                return True
            place = torch.tensor(row * one.width + column)
            if gradient is None or not _is_around(gradient[0], torch.unravel_index(place, one.grid), one.grid):
                return False
        return True

    def is_moved(self, run: Run) -> bool:
        """Whether the layer gives a map whose cells were cut off or are not in their places."""
        known = self._axes.axes(run.edge)
        is_cut = isinstance(known, tuple) and is_cut_off(known)
        return len(run.shape or ()) == 4 and (is_cut or isinstance(known, Lost))

    def gives_logits(self, run: Run, one: Reading) -> bool:
        """Whether the mean of a layer's maps over the grid is the logits: then the layer is the classifier. So it is
        where the network returns maps of as many channels, and a score is made of them."""
        assert run.output is not None
        if one.num_channels in self._map_channels:
            return True
        if one.num_channels != self.logits.shape[1]:
            return False
        logits = self.logits[0].detach()
        mean = one(run.output)[0].mean((1, 2)).to(logits)
        # Of those that are not masked, behind the layer perhaps.
        shown = logits.abs() <= rounding_scale(logits).amin()
        return not bool(differ(mean[shown], logits[shown], 1e-3))

    def has_single_cells_behind(self, site: Site) -> bool:
        """Whether a layer behind this one has a map of a single cell: larger images may give it more."""
        place = next(index for index, run in enumerate(self.runs) if run.module is site.module)
        return any(
            self.may_be_explained(run) and run.output is not None and run.output.ndim > 2 and not self.readings(run)
            for run in self.runs[place + 1 :]
        )

    def token_grid(self, num_tokens: int) -> Reading:
        """The way to read one value for each of so many tokens, `[N,num_tokens,1]`, as maps `[N,1,h,w]`.

        Raises:
            LayerError: no layer gives so many tokens of a grid.
        """
        single = Axis((Factor("c", 1),))
        for run in reversed(self.runs):
            known = self._axes.axes(run.edge)
            axes = known if isinstance(known, tuple) and len(known) == 3 else ()
            tokens = next((axis for axis in axes if axis.size == num_tokens and set(axis.roles) <= {"h", "w"}), None)
            found = tokens and reading((Axis((Factor("n", 1),)), tokens, single))
            if found:
                return found
        sides = "x".join(str(side) for side in self.images.shape[2:])
        raise LayerError(
            f"{num_tokens} tokens are no grid of images {sides} that {type(self.model).__name__} is seen to "
            "make: pass `reshape=`, a function from [N,T,1] to [N,1,h,w]."
        )


_POOLINGS: Mapping[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    1: (F.adaptive_avg_pool1d, F.avg_pool1d),
    2: (F.adaptive_avg_pool2d, F.avg_pool2d),
    3: (F.adaptive_avg_pool3d, F.avg_pool3d),
}


def _strongest_in_corners(strength: Tensor) -> list[tuple[int, int]]:
    """In each corner of a map [h,w] the row and column of the largest number."""
    height, width = strength.shape
    rows, columns = max(1, height // 3), max(1, width // 3)
    corners = {(top, left) for top in (0, height - rows) for left in (0, width - columns)}
    parts = [(top, left, int(strength[top : top + rows, left : left + columns].argmax())) for top, left in corners]
    return [(top + at // columns, left + at % columns) for top, left, at in parts]


def _is_around(gradient: Tensor, place: Sequence[Tensor], grid: Sequence[int]) -> bool:
    """Whether a gradient [C,H,W] at the pixels is largest around a place of the grid, up to a quarter of its sides."""
    pooled, averaged = _POOLINGS[len(grid)]
    energy = pooled(gradient.float().square().sum(0)[None], tuple(grid))
    # Of three by three cells: a single one may be loudest beside its place, as receptive fields overlap.
    around = averaged(energy, 3, 1, 1)[0]
    found = torch.unravel_index(around.argmax().cpu(), tuple(grid))
    near = [abs(int(one - other)) <= max(1, side / 4) for one, other, side in zip(found, place, grid, strict=True)]
    return bool(around.max() > 0) and all(near)


def _plain_pass(model: nn.Module, images: Tensor) -> Plain:
    """The pass of the first image, or of all where one alone cannot run; without a graph where autograd refuses it."""
    errors: list[Exception] = []
    with capture.undisturbed(model, images.device):
        # With a graph before without, as only a graph tells how outputs are read; one image before all, as it costs
        # less.
        for num, is_recorded in ((1, True), (len(images), True), (1, False), (len(images), False)):
            try:
                with about(range(num)):
                    return capture.observe(model, images[:num], is_recorded=is_recorded)
            except Exception as error:  # whatever a network raises
                errors.append(error)
    # That of the pass which the caller's own call would have made.
    raise errors[1]
