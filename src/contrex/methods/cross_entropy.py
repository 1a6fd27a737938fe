"""The baseline: cross-entropy on the views that the other methods see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from contrex.data.views.batch import Batch
from contrex.methods.step import Step, StepOutput, step_output
from contrex.models import Classifier
from contrex.ops.pixels import without_random_cells
from contrex.settings import CrossEntropy


class CrossEntropyStep(Step):
    """`L = CE(x)`, `CE(T(x))` or the mean of both, as `views` says; with `deletions`, some images lack a cell."""

    def __init__(self, classifier: Classifier, settings: CrossEntropy) -> None:
        super().__init__(classifier)
        self.settings = settings

    def forward(self, batch: Batch) -> StepOutput:
        """Classify the views that count; one forward pass."""
        if self.settings.deletions:
            batch = self._without_cells(batch)
        loss, logits = self.classified(batch, self.settings.views)
        return step_output(batch.labels, logits, loss)

    def _without_cells(self, batch: Batch) -> Batch:
        """The batch of whose images and views a share has lost a cell to the mean colour, which is zero to the network.

        Drawn from torch's generator, whose seed is that of the step, as dropout is.
        """
        fill = self.denormalise(torch.zeros_like(batch.images[:1]))
        given: dict[str, Any] = {"share": self.settings.deletions, "grid": self.settings.deletion_grid, "fill": fill}
        views = [replace(view, pixels=without_random_cells(view.made(), **given)) for view in batch.views]
        return replace(batch, images=without_random_cells(batch.images, **given), views=tuple(views))
