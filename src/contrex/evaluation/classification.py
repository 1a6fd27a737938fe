"""How well the classifier classifies: accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import TopKAccuracy


class Top1(Protocol):
    """Top-1 accuracy on the squares."""

    k: ClassVar[int] = 1

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [TopKAccuracy(k=self.k)]

    def judge(self, group: Group) -> Sequence[int]:
        self.metrics[0].update(group.logits, group.labels)
        return group.indices


class Top5(Top1):
    """Top-5 accuracy on the squares."""

    k = 5
    min_classes = 5
