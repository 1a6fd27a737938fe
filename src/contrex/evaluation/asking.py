"""Asking the network of a bench about a group's images and changed copies of them."""

from __future__ import annotations

from contrex.evaluation.bench import Group
from contrex.metrics import Answers


def answers_about(group: Group) -> Answers:
    """The network about the squares of `group`, whose logits are known, of the predicted class."""
    bench = group.bench
    return Answers(bench.network, group.squares, logits=group.logits, batch_size=bench.chunk, task=bench.options.task)
