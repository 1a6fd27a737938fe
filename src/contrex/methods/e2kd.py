"""e2KD (Parchami-Araghi et al., "Good Teachers Explain", ECCV 2024, eq. 3): a network learns its teacher's heatmaps as
well as its outputs, from one view.

    L = w * T^2 * mean KL( softmax(t / T) || softmax(y / T) )  +  lambda * mean (1 - cos( g_t, g_y ))

for the logits t, y and the positive heatmaps g of teacher and network, both for the teacher's top class. Where both see
the view and the network begins as its teacher, L begins at its least, 0, and holds everything as it is. With the
teacher's answers to the plain image (the paper's "frozen" ones, computed once) the maps must follow the view, so there
is something to learn.

Deviation: labels, and which part of the network is trained, are those of the retrofit (`contrex.methods.retrofit`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.data.views.batch import Batch
from contrex.explain import Explainer
from contrex.explain.named import build_explainer
from contrex.losses import distillation_loss, l2_consistency_loss
from contrex.methods.averaging import Teacher
from contrex.methods.step import Step, views_of
from contrex.ops.geometry import Crop
from contrex.settings import Retrofit


class E2KD:
    """Compares a network's heatmaps of the transformed images with its teacher's own."""

    def __init__(self, settings: Retrofit) -> None:
        self.settings = settings
        self._of_teacher: Explainer | None = None

    def __call__(
        self, step: Step, explainer: Explainer, teacher: Teacher, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of the network that `explainer` explains, its terms, and the logits of the transformed images, twice
        `[2N,K]`."""
        settings, crop = self.settings, batch.views[0].crop
        if self._of_teacher is None:
            self._of_teacher = build_explainer(teacher.network, settings.explainer, settings.layer)
        plain, view = (step.normalise(images) for images in views_of(batch))
        from_plain = settings.compared_with == "teacher-plain"
        theirs = self._of_teacher(plain if from_plain else view, contrast=settings.contrast)
        found = explainer(view, target=theirs.target, contrast=settings.contrast, differentiable=True)
        logits = found.logits.to(torch.promote_types(found.logits.dtype, torch.float32))
        distillation = distillation_loss(logits, theirs.logits, temperature=settings.distillation_temperature)
        moved = crop if from_plain else Crop.identity(len(batch), crop.image_size)
        # Of unit vectors the squared distance is twice 1 - cosine.
        consistency = l2_consistency_loss(theirs.heatmap, found.heatmap, moved, size=settings.resolution) / 2
        agreement = (logits.argmax(1) == theirs.logits.argmax(1)).float().mean()
        loss = settings.distillation_weight * distillation + settings.weight * consistency
        terms = {"distillation": distillation, "consistency": consistency, "agreement": agreement}
        return loss, terms, logits.repeat(2, 1)
