"""Errors for layers that cannot be explained: what was found, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from contrex.explain.forward.capture import Run
from contrex.explain.forward.gradients import Gradients
from contrex.explain.forward.observed import Observed
from contrex.models.layers import layer_name
from contrex.models.reading import token_grids

_LISTED = 3
"""How many layers an error names."""


def unreadable(seen: Observed, run: Run, num_readings: int) -> str:
    """What to say of a layer whose output can be read as maps in no way, or in several."""
    shape = None if run.output is None else list(run.output.shape)
    what = type(run.output).__name__ if shape is None else f"a tensor {shape}"
    name, kind = layer_name(run.module, seen.model), type(run.module).__name__
    given = f"{name!r} ({kind}) gives {what} for images {list(seen.images.shape)}"
    ask = "pass `reshape=`, a function from its output to [N,C,h,w]"
    if num_readings > 1:
        return f"`layer` {given}, which may be [N,C,h,w] or [N,h,w,C], and nothing in the network tells: {ask}."
    if seen.is_moved(run):
        return misplaced(seen, run)
    hint = ""
    if shape is not None and len(shape) == 3 and shape[0] == len(seen.images) and seen.rank == 2:
        grids = token_grids(shape[1], (seen.images.shape[2], seen.images.shape[3]))
        texts = [f"{h} x {w}" + f" behind {prefix} tokens" * (prefix > 0) for prefix, h, w in grids]
        hint = (
            f" ({' or '.join(texts)} would fit their number, but nothing tells that they are patches)" if texts else ""
        )
    return (
        f"`layer` must give a feature map, {given}, which is no grid [N,C,h,w], [N,h,w,C] or [N,T,D] of more than "
        f"one cell{hint}: choose another, or {ask}."
    )


def misplaced(seen: Observed, run: Run) -> str:
    """What to say of a layer whose cells are not in their places."""
    return (
        f"`layer` {layer_name(run.module, seen.model)!r} gives a map that nothing places in the image: the network "
        "cuts, moves or mixes its cells before. Choose an earlier layer, crop the images before the call where it is "
        "the network that crops them, or pass `reshape=`, a function from its output to [N,C,h,w]."
    )


def nothing_found(seen: Observed, misplaced_runs: Sequence[Run], gradients: Gradients) -> str:
    """What to say where no layer was found; `misplaced_runs` are layers with maps that nothing places."""
    model = type(seen.model).__name__
    moved = [run for run in seen.runs if seen.is_moved(run)] or misplaced_runs
    if moved:
        return (
            f"no feature map of {model} has its cells where they are in the image: the network cuts, moves or "
            f"mixes them before {layer_name(moved[0].module, seen.model)!r}. Crop the images before the call where it "
            "is the network that crops them, pass `layer=` with a `reshape=` that puts them back, or explain the "
            "pixels (Gradient, RISE)."
        )
    beside = _shares_past(seen, gradients)
    if beside:
        return (
            f"no layer of {model} carries the logits alone: {'; '.join(beside)}. Pass `layer=` the name of one of "
            "them for its part of the explanation, or explain the pixels (Gradient, RISE)."
        )
    if any("Checkpoint" in node.name() for node in seen.graph.nodes):
        return (
            f"{model} computes activations again in the backward pass (gradient checkpointing), so nothing tells "
            "which layer carries its logits: turn it off for the call (`model.set_grad_checkpointing(False)` in "
            "timm), or pass `layer=` the name of one."
        )
    return (
        f"no feature map was found before the classifier of {model}: pass `layer=` the name of a module that gives "
        "[N,C,h,w], [N,h,w,C] or tokens [N,T,D], with `reshape=` where nothing tells how to read it."
    )


def _shares_past(seen: Observed, gradients: Gradients) -> list[str]:
    """The last few layers that give maps, in words, with the share of the gradient that flows past each."""
    found: dict[str, str] = {}
    for run in reversed(seen.runs):
        name = layer_name(run.module, seen.model)
        # Of nested modules the outermost is enough: those inside give the same or part of it.
        if len(found) == _LISTED or any(name.startswith(f"{outer}.") for outer in found):
            continue
        only = seen.readings(run) if seen.may_be_explained(run) else []
        if len(only) == 1 and run.edge is not None and seen.graph.reaches_source(run.edge[0]):
            share = gradients.share_past(run.edge)
            found[name] = f"{share:.0%} of the gradient flows past {name!r} ({' x '.join(map(str, only[0].grid))})"
    return list(found.values())
