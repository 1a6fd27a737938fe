"""Which layer to explain: one plain pass of the network, and what its graph says of every layer.

A layer's map explains the logits if they come through it: with its output detached no gradient reaches the pixels. That
is read off the graph (`contrex.models.graph`), where every path from the logits to the images must go through the
layer's output, so weights that are still zero hide nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward import capture
from contrex.explain.forward.capture import FULL_PRECISION, Run
from contrex.explain.forward.diagnosis import scripted
from contrex.models.axes import Axis, Factor, Lost
from contrex.models.following import Followed
from contrex.models.graph import Edge, Graph, as_gradient_edge
from contrex.models.layers import Reshape, Site, layer_name
from contrex.models.reading import Reading, possible_readings, reading, token_grids

_NO_MAPS = re.compile(r"(Pool(ing)?|Dropout)\d?d?$|^Identity$|^Softmax")
"""Class names of layers that pass on, in part or whole, the map before them, or give attention weights."""
_ROUNDING = 1e-4
"""Gradients are equal if they differ by less than this share of the largest."""
_AT_FIRST = 8
"""How many candidates the first backward pass goes back to: nearly always it is one of the last."""
_LISTED = 3
"""How many layers an error names."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer that gives maps, which the logits come through - but for a class token's own way past the explained
    tokens, where `only_cells` says so."""

    run: Run
    reading: Reading
    only_cells: bool = False

    @property
    def carries_in_cells(self) -> bool:
        """Whether the cells of its map alone carry the logits: no tokens stand beside them."""
        return not self.only_cells and not self.reading.has_prefix

    @property
    def num_cells(self) -> int:
        """Cells of its map."""
        return self.reading.height * self.reading.width


class Survey:
    """One forward pass of the first image in eval mode, as the model runs it, with its graph from logits to pixels.

    A network that cannot run a single image of the batch (it adds something of its own to each) runs the whole batch.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model = model
        with capture.program() as functions:
            self.images, self.logits, self.runs = _observed(model, images)
        self.functions: Sequence[object] = functions
        self._num_images = len(images)
        self._num_runs = Counter(run.module for run in self.runs)

    @cached_property
    def graph(self) -> Graph:
        """From the logits to the images; empty where the network runs without gradients."""
        return Graph(self.logits, self.images)

    def choose(self, reshape: Reshape | None = None) -> Site:
        """The last layer that carries the logits and whose cells the gradient reaches.

        Behind the last attention of a vision transformer the class token takes all of the gradient, so there it is the
        norm before that attention.

        Raises:
            LayerError: there is none; the message names what was found.
        """
        self._check_gradients()
        first = self.first_placed(self.candidates)
        if first is None:
            raise LayerError(self._nothing_found())
        if first.carries_in_cells:
            return self._site(first.run, first.reading, reshape)
        gradients = self._gradients([edge for one in self.candidates[:_AT_FIRST] for edge in _edges(one.run)])
        for index, one in enumerate(self.candidates):
            if index == _AT_FIRST:
                gradients |= self._gradients([edge for one in self.candidates[index:] for edge in _edges(one.run)])
            gradient = _at(gradients, one.run.edge)
            if gradient is not None and bool((one.reading(gradient) != 0).any()):
                passes_beside = not one.only_cells or self._passes_beside_cells_only(one, gradients)
                if passes_beside and self.first_placed([one]):
                    return self._site(one.run, one.reading, reshape)
            elif one.carries_in_cells or gradient is None or not bool((gradient != 0).any()):
                break  # nothing arrives in this layer, so nothing arrives in any before it
        raise LayerError(
            f"no gradient reaches any feature map of {type(self.model).__name__} (is its classifier still all zeros?): "
            "pass `layer=` the name of one."
        )

    def first_placed(self, candidates: Iterable[Candidate]) -> Candidate | None:
        """The first whose cells lie where its reading says."""
        return next((one for one in candidates if self._is_placed(one.run, one.reading)), None)

    def site(self, candidate: Candidate) -> Site:
        """A candidate as the layer to explain."""
        return self._site(candidate.run, candidate.reading, None)

    def named(self, module: nn.Module, reshape: Reshape | None = None) -> Site:
        """The layer that the user named; its `past` is the share of the gradient that flows past it.

        Raises:
            LayerError: it did not run once, gives no map, or one that can be read in two ways.
        """
        if isinstance(module, torch.jit.ScriptModule):
            raise scripted("`layer` is in")
        run = capture.only_run([run for run in self.runs if run.module is module], module, self.model)
        found = None if reshape else self._only_reading(run)
        site = self._site(run, found, reshape)
        if not self.graph.nodes or run.edge is None or self.graph.carries(run.edge):
            return site
        candidate = None if found is None else self._beside_cells(run, found)
        if candidate is not None and self._passes_beside_cells_only(candidate, self._gradients(_edges(run))):
            return site
        return self._site(run, found, reshape, past=self._share_past(run.edge))

    @cached_property
    def candidates(self) -> Sequence[Candidate]:
        """The layers with a map that the logits come through, the last one first; of nested ones the outermost first.

        Left out are pooling and dropout layers (they repeat what came before), maps whose mean over the grid is the
        logits (they are the classifier) with those of as many channels right before them, modules that run several
        times (their map is ambiguous), and images that were only changed.
        """
        found: list[Candidate] = []
        is_classifier = False
        for run in reversed(self.runs):
            only = self._readings(run) if self._may_be_explained(run) else []
            if len(only) != 1:
                continue
            (one,) = only
            if not found and one.num_channels == self.logits.shape[1]:
                is_classifier = is_classifier or self._gives_logits(run, one)
                if is_classifier:
                    continue
            if self.graph.carries(run.edge):
                found.append(Candidate(run, one))
            elif (beside := self._beside_cells(run, one)) is not None:
                found.append(beside)
        return found

    def has_single_cells_behind(self, site: Site) -> bool:
        """Whether a layer behind this one has a map of a single cell: larger images may give it more."""
        place = next(index for index, run in enumerate(self.runs) if run.module is site.module)
        return any(
            self._may_be_explained(run) and run.output is not None and run.output.ndim > 2 and not self._readings(run)
            for run in self.runs[place + 1 :]
        )

    def token_grid(self, num_tokens: int) -> Reading:
        """How one value for each of so many tokens `[N,num_tokens,1]` becomes maps `[N,1,h,w]`.

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
        height, width = self.images.shape[2:]
        raise LayerError(
            f"{num_tokens} tokens are no grid of images {height}x{width} that {type(self.model).__name__} is seen to "
            "make: pass `reshape=`, a function from [N,T,1] to [N,1,h,w]."
        )

    def _may_be_explained(self, run: Run) -> bool:
        """Whether the layer's kind and number of runs allow it."""
        is_changed_image = run.output is not None and run.output.shape == self.images.shape
        return not (
            run.module is self.model
            or self._num_runs[run.module] != 1
            or is_changed_image
            or _NO_MAPS.search(type(run.module).__name__)
        )

    @cached_property
    def _axes(self) -> Followed:
        return Followed(self.graph)

    def _readings(self, run: Run) -> list[Reading]:
        if run.output is None or not run.output.is_floating_point():
            return []
        known = self._axes.axes(run.edge)
        return possible_readings(known, run.output.shape, self.images.shape, run.module, self.model)

    def _only_reading(self, run: Run) -> Reading:
        found = self._readings(run)
        if len(found) != 1:
            raise LayerError(self._unreadable(run, len(found)))
        if not self._is_placed(run, found[0]):
            raise LayerError(self._misplaced(run))
        return found[0]

    def _is_placed(self, run: Run, one: Reading) -> bool:
        """Whether cells lie where the reading says: by rules for each function before, or else by measuring.

        In each corner of the grid the strongest cell must depend most on the pixels around its own place: so a map that
        is flipped, turned or shuffled is found out.
        """
        edge, output = run.edge, run.output
        if edge is None or output is None or (self._axes.axes(edge) is not None and not self._axes.is_presumed(edge)):
            return True
        strength = one(output.detach())[0].abs().sum(0)
        entries = one(torch.arange(output.numel(), device=output.device).reshape(output.shape))[0]
        for row, column in _strongest_in_corners(strength):
            cell = entries[:, row, column]
            weights = torch.randn(len(cell), generator=torch.Generator().manual_seed(0), device="cpu")
            cotangent = torch.zeros_like(output).flatten().index_copy(0, cell, weights.to(output)).view_as(output)
            try:
                (gradient,) = torch.autograd.grad(
                    as_gradient_edge(edge), self.images, cotangent, retain_graph=True, allow_unused=True
                )
            except RuntimeError:  # reentrant checkpointing lets nothing be measured
                return True
            if gradient is None or not _is_around(gradient[0], (row, column), (one.height, one.width)):
                return False
        return True

    def _unreadable(self, run: Run, num_readings: int) -> str:
        shape = None if run.output is None else list(run.output.shape)
        what = type(run.output).__name__ if shape is None else f"a tensor {shape}"
        name, kind = layer_name(run.module, self.model), type(run.module).__name__
        given = f"{name!r} ({kind}) gives {what} for images {list(self.images.shape)}"
        ask = "pass `reshape=`, a function from its output to [N,C,h,w]"
        if num_readings > 1:
            return f"`layer` {given}, which may be [N,C,h,w] or [N,h,w,C], and nothing in the network tells: {ask}."
        if self._is_moved(run):
            return self._misplaced(run)
        hint = ""
        if shape is not None and len(shape) == 3 and shape[0] == len(self.images):
            grids = token_grids(shape[1], (self.images.shape[2], self.images.shape[3]))
            texts = [f"{h} x {w}" + f" behind {prefix} tokens" * (prefix > 0) for prefix, h, w in grids]
            hint = (
                f" ({' or '.join(texts)} would fit their number, but nothing tells that they are patches)"
                if texts
                else ""
            )
        return (
            f"`layer` must give a feature map, {given}, which is no grid [N,C,h,w], [N,h,w,C] or [N,T,D] of more than "
            f"one cell{hint}: choose another, or {ask}."
        )

    def _is_moved(self, run: Run) -> bool:
        """Whether the layer gives a map whose cells were cut off or are not in their places."""
        known = self._axes.axes(run.edge)
        is_cut = isinstance(known, tuple) and any(min(axis.before, axis.after) < 0 for axis in known)
        return len(run.shape or ()) == 4 and (is_cut or isinstance(known, Lost))

    def _misplaced(self, run: Run) -> str:
        return (
            f"`layer` {layer_name(run.module, self.model)!r} gives a map that nothing places in the image: the network "
            "cuts, moves or mixes its cells before. Choose an earlier layer, or pass `reshape=`, a function from its "
            "output to [N,C,h,w]."
        )

    def _beside_cells(self, run: Run, one: Reading) -> Candidate | None:
        """A layer of tokens which the logits come through or, beside it, through its input: there the gradient of the
        class token may go past it."""
        if not one.has_prefix or run.source is None or run.source_shape != run.shape:
            return None
        return Candidate(run, one, only_cells=True) if self.graph.carries(run.source) else None

    def _passes_beside_cells_only(self, candidate: Candidate, gradients: dict[Edge, Tensor]) -> bool:
        """Whether all that flows past the layer, from its output to its input, is in the tokens without a place."""
        run = candidate.run
        at_output, at_source = _at(gradients, run.edge), _at(gradients, run.source)
        if at_output is None or at_source is None or run.edge is None or run.source is None:
            return False
        (through,) = torch.autograd.grad(
            as_gradient_edge(run.edge), as_gradient_edge(run.source), at_output, retain_graph=True
        )
        past = candidate.reading(at_source - through).abs().max()
        return bool(past <= _ROUNDING * candidate.reading(through).abs().max())

    def _site(self, run: Run, one: Reading | None, reshape: Reshape | None, *, past: float = 0.0) -> Site:
        assert run.output is not None
        maps = reshape or one
        assert maps is not None
        rest = run.output.shape[1:]
        as_called = run.output if one is maps else run.output[:1].expand(self._num_images, *rest)
        shape = capture.map_shape(maps, as_called)
        return Site(run.module, maps, layer_name(run.module, self.model), (shape[2], shape[3]), rest, past)

    def _gives_logits(self, run: Run, one: Reading) -> bool:
        assert run.output is not None
        logits = self.logits[0].detach()
        mean = one(run.output)[0].mean((1, 2)).to(logits)
        return bool((mean - logits).abs().max() <= 1e-3 * logits.abs().max())

    def _check_gradients(self) -> None:
        if not self.logits.requires_grad:
            raise LayerError(
                f"{type(self.model).__name__} runs without gradients, so nothing tells which layer its logits come "
                "through: pass `layer=` the name of one, to a method that needs no gradient (ScoreCAM), or use RISE or "
                "Occlusion."
            )

    @cached_property
    def _cotangent(self) -> Tensor:
        """Weights for all classes, the same in each call: what one logit's gradient misses the others' show."""
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(self.logits.shape[1], generator=generator, device="cpu", dtype=torch.float64)
        return weights.to(self.logits).expand_as(self.logits)

    def _gradients(self, edges: Sequence[Edge]) -> dict[Edge, Tensor]:
        """What arrives at each edge, by one backward pass."""
        wanted = list(dict.fromkeys(edges))
        found = torch.autograd.grad(
            self.logits, [as_gradient_edge(e) for e in wanted], self._cotangent, retain_graph=True, allow_unused=True
        )
        return {edge: gradient for edge, gradient in zip(wanted, found, strict=True) if gradient is not None}

    def _share_past(self, edge: Edge) -> float:
        """`|d y / d x with the layer's output detached| / |d y / d x|`: how much of the gradient flows past it."""

        def arriving() -> float:
            (gradient,) = torch.autograd.grad(
                self.logits, self.images, self._cotangent, retain_graph=True, allow_unused=True
            )
            return 0.0 if gradient is None else float(gradient.norm())

        node, place = edge
        whole = arriving()
        # A hook on the node, for one backward pass: what arrives there from the logits goes no further.
        handle = node.register_prehook(
            lambda given: tuple(
                torch.zeros_like(one) if index == place and one is not None else one for index, one in enumerate(given)
            )
        )
        try:
            return arriving() / whole if whole else 0.0
        finally:
            handle.remove()

    def _nothing_found(self) -> str:
        model = type(self.model).__name__
        moved = [run for run in self.runs if self._is_moved(run)] or [one.run for one in self.candidates]
        if moved:
            return (
                f"no feature map of {model} has its cells where they are in the image: the network cuts, moves or "
                f"mixes them before {layer_name(moved[0].module, self.model)!r}. Pass `layer=` with a `reshape=` that "
                "puts them back, or explain the pixels (Gradient, RISE)."
            )
        beside = self._shares()
        if beside:
            return (
                f"no layer of {model} carries the logits alone: {'; '.join(beside)}. Pass `layer=` the name of one of "
                "them for its part of the explanation, or explain the pixels (Gradient, RISE)."
            )
        if any("Checkpoint" in node.name() for node in self.graph.nodes):
            return (
                f"{model} computes activations again in the backward pass (gradient checkpointing), so nothing tells "
                "which layer carries its logits: turn it off for the call (`model.set_grad_checkpointing(False)` in "
                "timm), or pass `layer=` the name of one."
            )
        return (
            f"no feature map was found before the classifier of {model}: pass `layer=` the name of a module that gives "
            "[N,C,h,w], [N,h,w,C] or tokens [N,T,D], with `reshape=` where nothing tells how to read it."
        )

    def _shares(self) -> list[str]:
        """The last few layers that give maps, with the share of the gradient that flows past each."""
        found: dict[str, str] = {}
        for run in reversed(self.runs):
            name = layer_name(run.module, self.model)
            if len(found) == _LISTED or any(name.startswith(f"{outer}.") for outer in found):
                continue
            only = self._readings(run) if self._may_be_explained(run) else []
            if len(only) == 1 and run.edge is not None and self.graph.reaches_source(run.edge[0]):
                share = self._share_past(run.edge)
                found[name] = f"{share:.0%} of the gradient flows past {name!r} ({only[0].height} x {only[0].width})"
        return list(found.values())


def _strongest_in_corners(strength: Tensor) -> list[tuple[int, int]]:
    """In each corner of a map [h,w] the row and column of the largest number."""
    height, width = strength.shape
    rows, columns = max(1, height // 3), max(1, width // 3)
    corners = {(top, left) for top in (0, height - rows) for left in (0, width - columns)}
    parts = [(top, left, int(strength[top : top + rows, left : left + columns].argmax())) for top, left in corners]
    return [(top + at // columns, left + at % columns) for top, left, at in parts]


def _is_around(gradient: Tensor, place: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether a gradient [C,H,W] at the pixels is largest around a place of the grid, up to a quarter of its sides."""
    energy = F.adaptive_avg_pool2d(gradient.float().square().sum(0)[None], grid)
    around = F.avg_pool2d(energy, 3, 1, 1)[0]
    found = divmod(int(around.argmax()), grid[1])
    near = [abs(one - other) <= max(1, side / 4) for one, other, side in zip(found, place, grid, strict=True)]
    return bool(around.max() > 0) and all(near)


def check_pass(found: Tensor, images: Tensor, own: Tensor, model: nn.Module) -> None:
    """Refuse a pass whose logits are not the model's `own`, of the same images or of the first of them.

    The explained layer hands on a copy of its output there. Where the network goes on with the output's memory as well,
    and changes it, the copy makes another network of it.

    Raises:
        LayerError: they differ by more than rounding, and by more than the model's own do from call to call.
    """
    if _are_close(found[: len(own)], own):
        return
    with torch.no_grad(), capture.undisturbed(model, images.device):  # logits may depend on the batch, or on chance
        whole, again = (capture.forward(model, images, (), graph="none").logits for _ in range(2))
    if _are_close(again, whole) and not _are_close(found, whole):
        raise LayerError(
            f"`layer` hands on memory that {type(model).__name__} goes on to use and to change, so explaining it "
            f"changes the logits (by {float((found - whole).abs().max()):.3g}): choose the layer before it."
        )


def _are_close(found: Tensor, own: Tensor) -> bool:
    """Whether logits are equal but for rounding; those that are not finite are told apart elsewhere."""
    found, own = (torch.nan_to_num(logits.detach(), 0.0, 0.0, 0.0) for logits in (found, own))
    is_coarse = torch.is_autocast_enabled(own.device.type) or own.dtype not in FULL_PRECISION
    return bool((found - own).abs().max() <= (5e-2 if is_coarse else 1e-3) * own.abs().max())


def _at(gradients: dict[Edge, Tensor], edge: Edge | None) -> Tensor | None:
    return None if edge is None else gradients.get(edge)


def _edges(run: Run) -> list[Edge]:
    return [edge for edge in (run.edge, run.source) if edge is not None]


def _observed(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Sequence[Run]]:
    """The pass of the first image, or of all where one alone cannot run; without a graph where autograd refuses it."""
    errors: list[Exception] = []
    with capture.undisturbed(model, images.device):
        for num, is_recorded in ((1, True), (len(images), True), (1, False), (len(images), False)):
            try:
                return capture.observe(model, images[:num], is_recorded=is_recorded)
            except Exception as error:  # whatever a network raises
                errors.append(error)
    raise errors[1]
