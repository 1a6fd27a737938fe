"""Which layer to explain: one plain pass of the network, and what its graph says of every layer.

A layer's map explains the logits if they come through it: with its output detached no gradient reaches the pixels. That
is read off the graph (`contrex.models.graph`), where every path from the logits to the images must go through the
layer's output, so weights that are still zero hide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.forward import capture
from contrex.explain.forward.capture import FULL_PRECISION, Run
from contrex.explain.forward.diagnosis import scripted
from contrex.explain.forward.gradients import Gradients, edges_of, gradient_at
from contrex.explain.forward.observed import Observed
from contrex.explain.forward.refusals import misplaced, nothing_found, unreadable
from contrex.models.graph import Edge
from contrex.models.layers import Flattened, Reshape, Site, layer_name
from contrex.models.outputs import what_is_read
from contrex.models.reading import Reading
from contrex.ops.likeness import differ

NUM_RESOLUTIONS = 3
"""How many resolutions of a network are fused where nobody names layers."""

_AT_FIRST = 8
"""How many candidates the first backward pass goes back to: nearly always it is one of the last."""


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
        """The number of cells of its map."""
        return self.reading.height * self.reading.width


class Survey:
    """The layers of an observed pass (`seen`) that carry its logits, the one to explain among them."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.seen = Observed(model, images)
        self._gradients = Gradients(self.seen)

    def choose(self, reshape: Reshape | None = None) -> Site:
        """Choose the last layer that carries the logits and whose cells the gradient reaches.

        Behind the last attention of a vision transformer the class token takes all of the gradient, so there it is the
        norm before that attention.

        Raises:
            LayerError: there is none; the message names what was found.
        """
        _check_gradients(self.seen)
        first = self.first_placed(self.candidates)
        if first is None:
            raise LayerError(nothing_found(self.seen, [one.run for one in self.candidates], self._gradients))
        chosen = first if first.carries_in_cells else self._last_reached()
        if chosen is None:
            raise LayerError(
                f"no gradient reaches any feature map of {type(self.seen.model).__name__} (is its classifier still all "
                "zeros?): pass `layer=` the name of one."
            )
        return _site_of(self.seen, chosen.run, chosen.reading, reshape)

    def choose_each(self, reshape: Reshape | None = None) -> Sequence[Site]:
        """Choose the last layer that carries the logits in each of the last three resolutions, the finest first.

        Raises:
            LayerError: there are no two, as in most vision transformers; or errors as in `choose`.
        """
        sites = [self.choose(reshape)]
        for one in self.candidates:
            is_finer = one.num_cells > math.prod(sites[-1].grid) and one.carries_in_cells
            if is_finer and len(sites) < NUM_RESOLUTIONS and self.first_placed([one]):
                sites.append(self.site(one))
        if len(sites) < 2:
            height, width = sites[0].grid
            raise LayerError(
                f"`fuse` without names takes layers of several resolutions, and {type(self.seen.model).__name__} has "
                f"one, {height} x {width}: name layers, 'mean(LAYER, LAYER)'."
            )
        return sites[::-1]

    def _last_reached(self) -> Candidate | None:
        """The last candidate whose cells the gradient reaches."""
        known = self._arriving(self.candidates[:_AT_FIRST])
        # From the logits down. Only cells that a gradient reaches have a map: behind a class token's last attention
        # they get none, and the search goes on before it.
        for index, one in enumerate(self.candidates):
            if index == _AT_FIRST:
                known |= self._arriving(self.candidates[index:])
            gradient = gradient_at(known, one.run.edge)
            if gradient is not None and bool((one.reading(gradient) != 0).any()):
                if self._carries_with(one, known) and self.first_placed([one]):
                    return one
            elif one.carries_in_cells or gradient is None or not bool((gradient != 0).any()):
                return None  # nothing arrives in this layer, so nothing arrives in any before it
        return None

    def _arriving(self, candidates: Sequence[Candidate]) -> dict[Edge, Tensor]:
        """The gradients at the outputs and inputs of candidates, by one backward pass."""
        return self._gradients.arriving([edge for one in candidates for edge in edges_of(one.run)])

    def _carries_with(self, one: Candidate, known: dict[Edge, Tensor]) -> bool:
        """Whether a candidate carries the logits but for what flows past it in tokens without a place."""
        return not one.only_cells or self._gradients.pass_beside_cells_only(one.run, one.reading, known)

    def first_placed(self, candidates: Iterable[Candidate]) -> Candidate | None:
        """The first candidate whose cells lie where its reading says."""
        return next((one for one in candidates if self.seen.is_placed(one.run, one.reading)), None)

    def site(self, candidate: Candidate) -> Site:
        """A candidate as the layer to explain, read as it is."""
        return _site_of(self.seen, candidate.run, candidate.reading, None)

    def named(
        self, module: nn.Module, reshape: Reshape | None = None, number: int | None = None, *, entering: bool = False
    ) -> Site:
        """The layer that the user named, as one to explain; its `past` is the share of the gradient that flows past it.
        Of a module with several runs it is that of the `number`. What is `entering` it may be explained in its place.

        Raises:
            LayerError: it did not run once and no run was named, gives no map, or one that can be read in two ways.
        """
        if isinstance(module, torch.jit.ScriptModule):
            raise scripted("`layer` is in")
        runs = self.seen.runs_of_modules.of(module)
        if number is None and len(runs) > 1:
            number = self.seen.runs_of_modules.only_on_images(module)
        run = capture.only_run(runs, module, self.seen.model, number)
        run = _before(run, self.seen) if entering else run
        found = None if reshape else self._only_reading(run)
        site = _site_of(self.seen, run, found, reshape)
        if not self.seen.graph.nodes or run.edge is None or self.seen.graph.carries(run.edge):
            return site
        candidate = None if found is None else self._beside_cells(run, found)
        if candidate is not None and self._carries_with(candidate, self._arriving([candidate])):
            return site
        return _site_of(self.seen, run, found, reshape, past=self._gradients.share_past(run.edge))

    @cached_property
    def candidates(self) -> Sequence[Candidate]:
        """The layers with a map that the logits come through, the last one first; of nested ones the outermost first.

        Left out are pooling and dropout layers (they repeat what came before), maps whose mean over the grid is the
        logits (they are the classifier) with those of as many channels right before them, modules that run several
        times (their map is ambiguous), and images that were only changed.
        """
        found: list[Candidate] = []
        classes = 0  # of the layer that is the classifier, once it was met
        for run in reversed(self.seen.runs):
            only = self.seen.readings(run) if self.seen.may_be_explained(run) else []
            if len(only) != 1:
                continue
            (one,) = only
            if not found and (not classes or one.num_channels == classes):
                classes = one.num_channels if self.seen.gives_logits(run, one) else classes
                if classes == one.num_channels:
                    continue
            if self.seen.graph.carries(run.edge):
                found.append(Candidate(run, one))
            elif (beside := self._beside_cells(run, one)) is not None:
                found.append(beside)
        return found

    def _only_reading(self, run: Run) -> Reading:
        """The way to read the output of a layer, or `LayerError` where there is not one, or cells lie elsewhere."""
        found = self.seen.readings(run)
        if len(found) != 1:
            raise LayerError(unreadable(self.seen, run, len(found)))
        if not self.seen.is_placed(run, found[0]):
            raise LayerError(misplaced(self.seen, run))
        return found[0]

    def _beside_cells(self, run: Run, one: Reading) -> Candidate | None:
        """A layer of tokens which the logits come through or, beside it, through its input: there the gradient of the
        class token may go past it."""
        if not one.has_prefix or run.source is None or run.source_shape != run.shape:
            return None
        return Candidate(run, one, only_cells=True) if self.seen.graph.carries(run.source) else None


def _before(run: Run, seen: Observed) -> Run:
    """What a layer gets, as if it had given that."""
    if run.source is None or run.source_shape is None:
        raise LayerError(f"`layer` {layer_name(run.module, seen.model)!r} gets no single tensor: choose another.")
    like = torch.zeros(run.source_shape, dtype=seen.logits.dtype, device=seen.logits.device)
    return replace(run, output=like, edge=run.source)


def _site_of(seen: Observed, run: Run, one: Reading | None, reshape: Reshape | None, *, past: float = 0.0) -> Site:
    """A layer of a pass as one to explain, read by `reshape`, or by its reading where there is none."""
    assert run.output is not None
    maps = reshape or one
    assert maps is not None
    maps = maps if maps is one or seen.rank == 2 else Flattened(maps, seen.rank)
    rest = run.output.shape[1:]
    as_called = run.output if one is maps else run.output[:1].expand(seen.num_images, *rest)
    capture.map_shape(maps, as_called)
    grid = one.grid if one is not None else tuple(reshape(as_called.detach()).shape[2:]) if reshape else ()
    name, number = layer_name(run.module, seen.model), seen.runs_of_modules.number(run)
    return Site(run.module, maps, name if number is None else f"{name}:{number}", grid, rest, past, number)


def _check_gradients(seen: Observed) -> None:
    """Refuse a pass that recorded nothing."""
    if not seen.logits.requires_grad and (what := what_is_read()):
        raise LayerError(
            f"`score` {what} has no gradient (argmax, .detach(), a comparison?), or {type(seen.model).__name__} runs "
            "without, so nothing tells which layer it comes through: pass `layer=` the name of one, to a method that "
            "needs no gradient (ScoreCAM), or use RISE or Occlusion."
        )
    if not seen.logits.requires_grad:
        raise LayerError(
            f"{type(seen.model).__name__} runs without gradients, so nothing tells which layer its logits come "
            "through: pass `layer=` the name of one, to a method that needs no gradient (ScoreCAM), or use RISE or "
            "Occlusion."
        )


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
        difference = float((found.detach() - whole).abs().nan_to_num(0.0).max())
        raise LayerError(
            f"`layer` hands on memory that {type(model).__name__} goes on to use and to change, so explaining it "
            f"changes the logits (by {difference:.3g}): choose the layer before it."
        )


def _are_close(found: Tensor, own: Tensor) -> bool:
    """Whether logits are equal but for rounding."""
    is_coarse = torch.is_autocast_enabled(own.device.type) or own.dtype not in FULL_PRECISION
    # Logits of a deep network agree to about three digits in float32 and one or two in bfloat16, which has eight bits.
    return not bool(differ(found.flatten(), own.flatten(), 5e-2 if is_coarse else 1e-3))
