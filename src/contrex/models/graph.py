"""What the autograd graph of one pass says: which tensors every path from the logits to the images goes through.

Paths are counted, not gradients measured, so the answer does not depend on weights that are still zero, on rounding, or
on the image. A tensor is known by its edge, the node that made it and the place among that node's outputs, taken while
it was fresh: changing it in place later gives it another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

Edge = tuple[Any, int]
"""A node of the graph and the place of a tensor among its outputs."""


def edge_of(tensor: Tensor) -> Edge | None:
    """Where a tensor is in the graph right now; None where nothing was recorded for it."""
    if not tensor.requires_grad:
        return None
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def as_gradient_edge(edge: Edge) -> GradientEdge:
    """The edge as `torch.autograd.grad` takes it."""
    return GradientEdge(*edge)


def depends(tensor: Tensor, source: Edge | None) -> bool:
    """Whether a tensor was made of another one, as far as that was recorded."""
    edge = edge_of(tensor)
    return edge is not None and source is not None and source[0] in _inputs_first(edge[0])


class Graph:
    """The part of a pass' graph that lies between `source` (the images) and `output` (the logits).

    It keeps the Python side of each node: torch makes a new object for a node whose old one is gone, and then `is` and
    dictionaries would take one node for two.
    """

    def __init__(self, output: Tensor, source: Tensor) -> None:
        root, leaf = edge_of(output), edge_of(source)
        self.nodes: Sequence[Any] = [] if root is None else _inputs_first(root[0])
        self._source = None if leaf is None else leaf[0]
        # Paths are counted as whole numbers of any size, which Python has: a ResNet-152 has 2^50.
        self._downwards: dict[Any, int] = {}
        """How many paths lead from a node to the source."""
        for node in self.nodes:
            inputs = [before for before, _ in node.next_functions if before is not None]
            self._downwards[node] = int(self.is_source(node)) + sum(self._downwards[before] for before in inputs)
        self._upwards: dict[Edge, int] = {}
        """How many paths lead from the output to a tensor."""
        self._all = 0 if root is None else self._downwards[root[0]]
        if root is not None:
            self._count_upwards(root)

    def is_source(self, node: Any) -> bool:
        """Whether `node` stands for the source itself."""
        return node is self._source

    def reaches_source(self, node: Any) -> bool:
        """Whether what `node` gives depends on the source."""
        return self._downwards.get(node, 0) > 0

    def carries(self, edge: Edge | None) -> bool:
        """Whether every path from the output to the source goes through this tensor: then no gradient flows past it."""
        if edge is None or not self._all:
            return False
        # Paths through a tensor are those above it times those below it. If that is all, none goes past.
        return self._upwards.get(edge, 0) * self._downwards.get(edge[0], 0) == self._all

    def _count_upwards(self, root: Edge) -> None:
        from_output: dict[Any, int] = {root[0]: 1}
        self._upwards[root] = 1
        for node in reversed(self.nodes):
            num = from_output.get(node, 0)
            for before, place in node.next_functions:
                if before is not None and num and self.reaches_source(before):
                    self._upwards[before, place] = self._upwards.get((before, place), 0) + num
                    from_output[before] = from_output.get(before, 0) + num


def _inputs_first(root: Any) -> list[Any]:
    """Every node behind `root`, each after those that its inputs come from (no recursion: graphs are deep)."""
    order: list[Any] = []
    done, waiting = set(), [(root, False)]
    while waiting:
        node, inputs_are_done = waiting.pop()
        if inputs_are_done:
            order.append(node)
        elif node not in done:
            done.add(node)
            waiting.append((node, True))
            waiting.extend((before, False) for before, _ in node.next_functions if before is not None)
    return order
