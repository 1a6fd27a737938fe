"""One function of a pass as the rules of axes see it, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from contrex.models.axes import LOST, Axes, Axis, Factor, Known, sizes
from contrex.models.graph import Edge


@dataclass(frozen=True)
class Step:
    """One function of the pass: its node, the axes of its inputs in order, and the `shape` of one of its outputs, which
    has the `place` among them. `rank` is 1 for signals, 2 for pictures, 3 for volumes."""

    node: Any
    place: int
    inputs: Sequence[Known]
    shape: tuple[int, ...]
    rank: int = 2

    def saved(self, name: str) -> Any:
        """An argument of the function, which the node keeps for the backward pass; negative axes are counted up."""
        return _signed(getattr(self.node, f"_saved_{name}"))

    @property
    def known(self) -> Sequence[Axes]:
        """The axes of those inputs whose axes are known."""
        return [axes for axes in self.inputs if isinstance(axes, tuple)]


def _signed(value: Any) -> Any:
    """Numbers with their sign: torch shows negative ones as unsigned numbers of 64 bits."""
    if isinstance(value, (tuple, list)):
        return [_signed(one) for one in value]
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value


Rule = Callable[[Step], Known]
FirstRule = Callable[[Step, Axes], Axes | None]


def shapes_of(node: Any) -> list[tuple[int, ...]]:
    """The shapes of a node's outputs; one without axes where this torch does not tell."""
    return [tuple(output.shape) for output in getattr(node, "_input_metadata", ())] or [()]


def shape_at(edge: Edge) -> tuple[int, ...] | None:
    """The shape of a tensor; None where it is a constant, which no graph knows."""
    return None if edge[0] is None else shapes_of(edge[0])[edge[1]]


def of_first(rule: FirstRule) -> Rule:
    """A rule for functions of one tensor; what it cannot follow is lost, and what was lost or foreign stays so."""

    def follow(step: Step) -> Known:
        first = step.inputs[0]
        return rule(step, first) or LOST if isinstance(first, tuple) else first

    return follow


def left_in_place(step: Step) -> Known:
    """The axes behind a function without a rule: those of the inputs that have the output's shape."""
    return agreed(axes for axes in step.known if sizes(axes) == step.shape)


def agreed(candidates: Iterable[Axes]) -> Axes | None:
    """The axes that all candidates agree on, but for those that were cut out of a larger tensor; None without any."""
    found = list(candidates)
    # A padded shortcut may be cut where the other branch is not: the branch that is whole tells the places.
    uncut = [axes for axes in found if all(min(axis.before, axis.after) >= 0 for axis in axes)] or found
    is_one = bool(uncut) and all(alike(axes) == alike(uncut[0]) for axes in uncut)
    return min(uncut, key=lambda axes: sum(map(sum, (axis.cut for axis in axes)))) if is_one else None


def alike(axes: Axes) -> list[tuple[object, ...]]:
    """What two tensors must share to be added: a factor of size 1 may be missing, strides may be in other units."""
    return [(axis.before, axis.after, *(f.like for f in _split_up(axis) if f.size > 1)) for axis in axes]


def _split_up(axis: Axis) -> Sequence[Factor]:
    return [f if isinstance(f, Factor) else Factor("t", f.size) for f in axis.factors]


def lost_or_not(step: Step) -> Known:
    """Unknown (None) where the axes of an input are; otherwise lost."""
    return None if None in step.inputs else LOST


def with_axis(axes: Axes, place: int, axis: Axis | None) -> Axes | None:
    place %= len(axes)
    return None if axis is None else (*axes[:place], axis, *axes[place + 1 :])


def listed(value: Any) -> Sequence[int]:
    return [value] if isinstance(value, int) else value
