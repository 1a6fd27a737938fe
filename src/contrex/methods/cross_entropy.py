"""The baseline: cross-entropy on the views that the other methods see."""

from __future__ import annotations

from contrex.data.views.batch import Batch
from contrex.methods.step import Step, StepOutput, step_output
from contrex.models import Classifier
from contrex.settings import CrossEntropy


class CrossEntropyStep(Step):
    """`L = CE(x)`, `CE(T(x))` or the mean of both, as `views` says."""

    def __init__(self, classifier: Classifier, settings: CrossEntropy) -> None:
        super().__init__(classifier)
        self.settings = settings

    def forward(self, batch: Batch) -> StepOutput:
        """Classify the views that count; one forward pass."""
        loss, logits = self.classified(batch, self.settings.views)
        return step_output(batch.labels, logits, loss)
