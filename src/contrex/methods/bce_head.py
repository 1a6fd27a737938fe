"""A linear classifier trained with sigmoids on frozen features ("How to Probe", ICLR 2025)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from contrex.data.views.batch import Batch
from contrex.explain.forward.head import forward_features
from contrex.losses import binary_cross_entropy
from contrex.methods.averaging import Teacher
from contrex.methods.moving import trained_part
from contrex.methods.phase import Plan, one_phase
from contrex.methods.step import Step, StepOutput, Wants, step_output, views_of
from contrex.models import Classifier, classifier_head
from contrex.settings import BCEHead, Recipe


class BCEHeadStep(Step):
    """`L = mean_n sum_k BCE( s(y_nk), p_nk )` of the last linear layer alone, on features that do not change.

    p is 1 for the image's label and 0 for the others or, without labels, the probabilities of the network as it was
    (a softmax), or 1 for its top class. All else is frozen and in eval mode, so an image's features are the same to
    both, and come from one forward pass. The problem is convex: where it begins does not decide where it ends. It
    begins with W = 0 and b = -log(K - 1), each class as probable as 1 / K, or (`start="kept"`) with the layer as it is.

    An image has one class all the same, so the network stays what it was for whoever reads it, `multiclass`: the class
    is the largest logit, whatever a softmax or sigmoids make of it; heatmaps are those of a logit, as before. What
    reads probabilities (insertion, deletion, calibration) takes the softmax of logits that were not trained for one.

    Deviations: the paper trains a new layer on self-supervised and supervised encoders, from labels; the network's own
    outputs as targets are nobody's.
    """

    def __init__(self, classifier: Classifier, settings: BCEHead) -> None:
        super().__init__(classifier)
        self.settings = settings
        self._head, layer = classifier_head(self.network)
        self.wants = Wants(labels=settings.targets == "labels")
        self.teacher = None if settings.targets == "labels" else Teacher(self.network, decay=None)
        if self.teacher is not None:
            self.needs_labels = "its teacher answers for all images alike, so let all be `--data photos:PATH`"
        if settings.start == "uniform":
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, -math.log(max(layer.out_features - 1, 1)))

    def plan(self, recipe: Recipe) -> Plan:
        """One phase, with all but the last linear layer held."""
        plan, own = one_phase(self, recipe), set(self.trained_parameters())
        held = [parameter for parameter in self.network.parameters() if parameter not in own]
        return replace(plan, phases=[replace(phase, held=held) for phase in plan.phases])

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters of the last linear layer."""
        return trained_part(self.network, ("head",))

    def kept_in_eval(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    @property
    def reference(self) -> nn.Module | None:  # type: ignore[override]
        """The network as it was, where its outputs are the targets."""
        return self.teacher

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch; one forward pass."""
        plain, transformed = views_of(batch)
        seen = {"plain": [plain], "transformed": [transformed], "both": [plain, transformed]}[self.settings.views]
        layer = self.network.get_submodule(self._head)
        features, logits = forward_features(self.network, self.normalise(torch.cat(seen)), layer)
        if self.teacher is None:
            loss = binary_cross_entropy(logits, batch.labels.repeat(len(seen)))
            return step_output(batch.labels, logits[: len(batch)], loss)
        theirs = self._answers(self.teacher, features)
        top = theirs.argmax(1)
        loss = binary_cross_entropy(logits, theirs.softmax(1) if self.settings.targets == "teacher" else top)
        agreement = (logits.argmax(1) == top)[: len(batch)].float().mean()
        return StepOutput(loss, {"loss": loss.detach(), "agreement": agreement})

    @torch.no_grad()
    def _answers(self, teacher: Teacher, features: Tensor) -> Tensor:
        """The teacher's logits [N,K] for features that its own are equal to, in float32 or better."""
        logits: Tensor = teacher.network.get_submodule(self._head)(features)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
