"""What explains one picture of which the network may say another class than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import stack

from contrex.explain.explanation import KEPT, Explained, Explanation
from contrex.ops.scores import Contrast


@dataclass(frozen=True, eq=False, repr=False)
class ExpectedExplanation(Explained):
    """Why a picture is the predicted class, why that rather than the `expected` one, and the reverse: three maps of one
    picture, `heatmap` [1,3,h,w], of the classes `target` [1,3] with the `contrasts`. Where the prediction is the
    expected class that alone is explained, [1,1,h,w].
    """

    expected: int = 0
    contrasts: Sequence[Contrast] = ()

    @property
    def is_as_expected(self) -> bool:
        """Whether the prediction is the expected class."""
        return len(self.contrasts) == 1

    def columns(self) -> list[Explanation]:
        """The explanation that answers each question."""
        kept = {name: getattr(self, name) for name in KEPT}
        return [
            Explanation(self.heatmap[:, m], self.logits, self.target[:, m], self.task, contrast=contrast, **kept)
            for m, contrast in enumerate(self.contrasts)
        ]

    @classmethod
    def of(cls, columns: Sequence[Explanation], expected: int) -> ExpectedExplanation:
        """The explanations of one picture, as one."""
        first = columns[0]
        heatmap, target = (stack([getattr(one, name) for one in columns], 1) for name in ("heatmap", "target"))
        kept = {name: getattr(first, name) for name in KEPT}
        contrasts = [one.contrast for one in columns]
        return cls(heatmap, first.logits, target, first.task, expected=expected, contrasts=contrasts, **kept)
