"""Following what the axes of tensors are through the autograd graph of a pass.

Shapes do not tell: [1,96,96,96] may be channels-first or channels-last, 25 tokens may be a 5 x 5 grid or a 4 x 4 grid
behind a class token and eight registers, and 36 steps of an LSTM are no grid at all. The graph does tell. Axes are
followed through it from the images on: a convolution makes a new grid of the one it gets, a permutation moves axes, a
view splits and joins them, a concatenation sets tokens before the grid, a linear layer makes new channels.

A function without a rule is presumed to leave cells in place, and what rests on that is told apart: it has to be
measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contrex.models.axes import FOREIGN, LOST, ROLES, Axes, Known, grid, has_cells, sizes
from contrex.models.axis_rules import OF_OTHER_RANKS, RULES
from contrex.models.axis_step import Rule, Step, left_in_place, shapes_of
from contrex.models.graph import Edge, Graph


class Followed:
    """The axes of every tensor in a graph, by its edge, from those of the images on."""

    def __init__(self, graph: Graph, rank: int = 2) -> None:
        self._found: dict[Edge, Known] = {}
        self._presumed: set[Edge] = set()
        for node in graph.nodes:
            inputs = [FOREIGN if edge[0] is None else self._found[edge] for edge in node.next_functions]
            for place, shape in enumerate(shapes_of(node)):
                if not graph.reaches_source(node):
                    self._found[node, place] = FOREIGN
                elif graph.is_source(node):
                    self._found[node, place] = grid(ROLES[len(shape)], shape)
                else:
                    self._follow((node, place), Step(node, place, inputs, shape, rank))

    def axes(self, edge: Edge | None) -> Known:
        """The axes of a tensor, by its edge; None where they are unknown."""
        return None if edge is None else self._found.get(edge)

    def is_presumed(self, edge: Edge | None) -> bool:
        """Whether what is known of a tensor's axes rests on a function without a rule."""
        return edge in self._presumed

    def _follow(self, edge: Edge, step: Step) -> None:
        name = _name(step.node)
        self._found[edge] = found = _axes_of(step, name)
        if not isinstance(found, tuple):
            return
        edges = zip(step.node.next_functions, step.inputs, strict=True)
        givers = [giver for giver, axes in edges if isinstance(axes, tuple)]
        keeps_cells = True if _rule(name, step.rank) else _keeps_cells(step, found)
        if keeps_cells is False:
            self._found[edge] = LOST
        elif keeps_cells is None or all(self.is_presumed(giver) for giver in givers):
            self._presumed.add(edge)


def _keeps_cells(step: Step, axes: Axes) -> bool | None:
    """Whether a function without a rule sends the gradient of a cell to that cell alone; None: it does not tell."""
    was_seen = False
    try:
        (made,) = step.node._input_metadata
        for share in (0, 2 / 3):  # a flip moves the first, a sum over all before reaches beyond the second
            cell = tuple(int(share * axis.size) if has_cells(axis) else slice(None) for axis in axes)
            gradient = torch.zeros(step.shape, dtype=made.dtype, device=made.device)
            gradient[cell] = 1
            with torch.no_grad():
                sent = getattr(step.node, "apply", step.node)(gradient)  # functions written in Python have `apply`
            for part in sent if isinstance(sent, tuple) else (sent,):
                if isinstance(part, Tensor) and part.shape == step.shape:
                    # What arrives beside the cell; of a copy, as `part` may be `gradient` itself.
                    left = part.clone()
                    left[cell] = 0
                    was_seen |= bool(part.any())
                    if bool(left.any()):
                        return False
    except Exception:  # whatever a function of the user's own raises
        return None
    return True if was_seen else None


def _name(node: Any) -> str:
    return str(node.name().removeprefix("torch::autograd::").rstrip("0123456789").removesuffix("Backward"))


def _rule(name: str, rank: int) -> Rule | None:
    """The rule for the function of this name, if there is one."""
    return RULES.get(name) or (OF_OTHER_RANKS.get(name) if rank != 2 else None)


def _axes_of(step: Step, name: str) -> Known:
    """What the rule of this name gives; unknown where this torch keeps something else for it than expected."""
    try:
        axes = (_rule(name, step.rank) or left_in_place)(step)
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None
    return axes if not isinstance(axes, tuple) or sizes(axes) == step.shape else None
