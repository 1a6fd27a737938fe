"""What the network says about the images of a group, and about changed copies of them."""

from __future__ import annotations

from contrex.evaluation.bench import Group
from contrex.metrics import Answers


def answers_about(group: Group) -> Answers:
    """The network's answers about the squares of `group`, for the predicted class. The known logits are used again."""
    bench = group.bench
    return Answers(bench.network, group.squares, logits=group.logits, batch_size=bench.chunk, task=bench.options.task)
