"""What a call of an explainer asks about the logits that its forward pass gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.explain.scored import Wanted
from contrex.models.classes import by_name
from contrex.ops import scores
from contrex.ops.scores import Contrast, Question, Target
from contrex.settings.contrast import is_contrast, read_contrast

Targets = Target | str | Sequence[str] | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Asked:
    """What a call asks about the classes of a model, with the `task` that the logits turned out to have; `told` is the
    name of a score that is no class's."""

    contrast: Contrast
    score: str
    task: str
    names: Sequence[str] = ()
    told: str = ""

    def classes(self, target: Targets, logits: Tensor) -> Tensor:
        """The explained classes `[N]`."""
        chosen = target(logits) if callable(target) else by_name(target, self.names, "`target`")
        return scores.class_indices(chosen, logits, self.task)

    def question(self, logits: Tensor, classes: Tensor) -> Question:
        """What is asked about `classes` [N,M]: a row of weights for each."""
        rows = [
            scores.class_weights(logits, column, self.contrast, self.task, score=self.score)
            for column in classes.unbind(1)
        ]
        return Question(torch.stack(rows, 1), self.score, self.task)

    @classmethod
    def of(cls, names: Sequence[str], logits: Tensor, contrast: Contrast, score: str, task: str | None) -> Asked:
        """What is asked about these logits, names of classes as their indices."""
        task = scores.task_of(logits, task)
        num = 2 if task == "binary" else logits.shape[1]
        if names and len(names) != num:
            raise ArgumentError(f"`names` must be one for each of the model's {num} classes, got {len(names)}.")
        if isinstance(contrast, str) and (not names or is_contrast(contrast)):
            contrast = str(read_contrast(contrast))
        elif names:
            contrast = by_name(contrast, names, "`contrast`")
        return cls(contrast, score, task, names)

    @classmethod
    def by(cls, asking: Wanted, names: Sequence[str], logits: Tensor) -> Asked:
        """What a call asks, once its forward pass has given these logits, or scores in their place."""
        asking.check()
        told = names if asking.names is None else asking.names
        return replace(cls.of(told, logits, asking.contrast, asking.score, asking.task), told=asking.told)
