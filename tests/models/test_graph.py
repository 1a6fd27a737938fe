"""Which tensors carry the whole output, against detaching each of them."""

from __future__ import annotations

import pytest
import torch

from contrex.models.graph import Graph, edge_of


def images():
    return torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


def chain(x, see):
    return see(see(x * 2).relu()).sum((2, 3))


def side_path(x, see):
    return (see(x.tanh()) + x).sum((2, 3))


def zero_side_path(x, see):
    return (see(x.tanh()) + 0.0 * x).sum((2, 3))


def late_fusion(x, see):
    return torch.cat([see(x.tanh()).sum((2, 3)), see(x.relu()).sum((2, 3))], 1)


def diamond(x, see):
    top = see(x.tanh())
    return see(see(top.relu()) * see(top.sigmoid()) + top).sum((2, 3))


def twice_used(x, see):
    top = see(x * 3)
    return (top @ top).sum((2, 3))


def in_place(x, see):
    first = see(x * 2)  # what it is later is another tensor: all comes through both
    first.relu_()
    return see(first).sum((2, 3))


def one_of_two_outputs(x, see):
    halves = x.split(2, 3)
    see(halves[0])
    return see(halves[1].tanh()).sum((2, 3))


def without_use(x, see):
    see(x * 2)
    return x.sum((2, 3))


PROGRAMS = [
    chain,
    side_path,
    zero_side_path,
    late_fusion,
    diamond,
    twice_used,
    in_place,
    one_of_two_outputs,
    without_use,
]
CARRYING = {
    "chain": [True, True],
    "side_path": [False],
    "zero_side_path": [False],  # a weight that is still zero hides nothing
    "late_fusion": [False, False],
    "diamond": [True, False, False, True],
    "twice_used": [True],
    "in_place": [True, True],
    "one_of_two_outputs": [False, True],
    "without_use": [False],
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_what_carries_the_output(program):
    x, edges = images(), []

    def see(tensor):
        edges.append(edge_of(tensor))
        return tensor

    graph = Graph(program(x, see), x)
    assert [graph.carries(edge) for edge in edges] == CARRYING[program.__name__]


@pytest.mark.parametrize(
    "program", [one for one in PROGRAMS if "zero" not in one.__name__], ids=lambda one: one.__name__
)
def test_detaching_says_the_same(program):
    """Without zeros, a tensor carries the output if no gradient is left once it is detached."""
    for index, carries in enumerate(CARRYING[program.__name__]):
        x, seen = images(), []

        def see(tensor, index=index, seen=seen):
            seen.append(tensor)
            return tensor.detach() if len(seen) == index + 1 else tensor

        output = program(x, see).sum()
        left = torch.autograd.grad(output, x, allow_unused=True)[0] if output.requires_grad else None
        assert (left is None or not bool(left.any())) == carries


def test_without_a_graph_nothing_carries():
    x = images()
    with torch.no_grad():
        output = x * 2
    graph = Graph(output, x)
    assert not graph.nodes
    assert edge_of(output) is None
    assert not graph.carries(None)
    assert not Graph((x * 2).detach().requires_grad_() * 2, x).carries(edge_of(x))


def test_deep_and_wide_graphs_are_counted_at_once():
    """2^200 paths, and no recursion."""
    x = images()
    y = x
    for _ in range(200):
        y = y.sin() + y.cos()
    last = edge_of(y)
    for _ in range(2000):
        y = y + 1
    graph = Graph(y.sum(), x)
    assert graph.carries(last)
    assert not graph.carries(edge_of(x.sin()))
