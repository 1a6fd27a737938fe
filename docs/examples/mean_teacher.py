"""Self-distillation with a mean teacher (Tarvainen and Valpola, NeurIPS 2017): a method of one's own, in one file.

    contrex train docs/examples/mean_teacher.py:digits --method.weight 5

The student sees one random view of an image, its teacher another one; the teacher is a moving average of the student.

    L = CE(student(view 1)) + weight * || softmax(student(view 1)) - softmax(teacher(view 2)) ||^2

With images without labels (`--labelled.share 0.1 --labelled.rest unlabelled`) these have the second term, and the
labelled ones the first. In the paper both have the second term, and its weight rises over the first epochs.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F

from contrex.data.views.batch import Batch
from contrex.methods import Step, StepOutput, Teacher, Wants, step_output, transformed_of
from contrex.models import Classifier
from contrex.recipes.digits import cross_entropy
from contrex.settings import Method, Recipe


@dataclass(frozen=True)
class MeanTeacher(Method):
    """Cross-entropy + `weight` x squared distance of the student's probabilities from its teacher's."""

    implementation: ClassVar[str] = ":MeanTeacherStep"

    weight: float = 10.0
    """Of the distance, summed over the classes and averaged over the images."""
    decay: float = 0.99
    """How much of the teacher stays in each step."""


class MeanTeacherStep(Step):
    """A student and the teacher that follows it."""

    wants = Wants(views=2, unlabelled_views=2, views_beside_unlabelled=1)

    def __init__(self, classifier: Classifier, settings: MeanTeacher) -> None:
        super().__init__(classifier)
        self.settings = settings
        self.teacher = Teacher(self.network, decay=settings.decay)

    def forward(self, batch: Batch) -> StepOutput:
        """One pass of the student and one of the teacher; one more of the student for images without labels."""
        logits = compared = self.logits(transformed_of(batch, 1)[0])
        others = batch
        if batch.unlabelled is not None:
            others = batch.unlabelled
            compared = self.logits(transformed_of(others, 1)[0])
        targets = self.teacher(self.normalise(transformed_of(others, 2)[1])).softmax(1)
        distance = (compared.softmax(1) - targets).square().sum(1).mean()
        cross_entropy = F.cross_entropy(logits, batch.labels)
        loss = cross_entropy + self.settings.weight * distance
        return step_output(batch.labels, logits, loss, cross_entropy=cross_entropy, distance=distance)

    def after_step(self, number: int) -> None:
        """The teacher follows."""
        self.teacher.after_step(self.network)


def digits() -> Recipe:
    """The built-in digits with a mean teacher."""
    return replace(cross_entropy(), name="digits_mean_teacher", method=MeanTeacher())
