"""What the network says about the images of a group, and about changed copies of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from contrex.evaluation.bench import Group
from contrex.metrics import Answers


def answers_about(group: Group, *, target: Tensor | None = None) -> Answers:
    """The network's answers about the squares of `group`, for the predicted class or the `target` [N]. The known logits
    are used again."""
    bench = group.bench
    known: dict[str, Any] = {"logits": group.logits, "batch_size": bench.chunk, "task": bench.options.task}
    return Answers(bench.network, group.squares, target=target, **known)
