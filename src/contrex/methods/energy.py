"""Guiding heatmaps into boxes by the energy loss (Rao et al., ICCV 2023)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain import HiResCAM
from contrex.losses import energy_losses
from contrex.methods.step import ExplainingStep, StepOutput, Wants, softmax_cross_entropy, step_output, views_of
from contrex.metrics import object_mask
from contrex.models import Classifier
from contrex.ops.geometry import warp_boxes
from contrex.settings import EnergyGuided


class EnergyGuidedStep(ExplainingStep):
    """`L = L_CE + lambda * mean energy_losses( g(x), boxes )`, g for the ground-truth class.

    g is the element-wise form of Grad-CAM (HiResCAM). Boxes are cut and mirrored as the views are. The mean is over all
    images that are classified; those without a box, or whose box the view cuts off, count as 0, so they have the
    cross-entropy alone, and where boxes are few the weight must be larger. Deviations: the paper has several layers and
    explainers, and a sigmoid for each class.
    """

    def __init__(self, classifier: Classifier, settings: EnergyGuided) -> None:
        super().__init__(classifier)
        self.settings = settings
        self.wants = Wants(boxes=settings.boxes)
        self._explainer = HiResCAM(classifier.network, settings.layer)

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: explain the views that count, in one forward pass, and see what lies in the boxes."""
        plain, transformed = views_of(batch)
        of_plain, of_view = boxes_of(batch)
        seen = {"plain": [plain], "transformed": [transformed], "both": [plain, transformed]}[self.settings.views]
        boxes = {"plain": of_plain, "transformed": of_view, "both": [*of_plain, *of_view]}[self.settings.views]
        labels = batch.labels.repeat(len(seen))
        found = self._explainer(
            self.normalise(torch.cat(seen)), target=labels, contrast=self.settings.contrast, differentiable=True
        )
        masks = torch.stack([_mask(own, (plain.shape[2], plain.shape[3])) for own in boxes])
        energy = energy_losses(found.heatmap, masks.to(found.heatmap.device)).mean()
        cross_entropy = softmax_cross_entropy(found.logits, labels)
        # on the device of the loss, with which it is averaged over processes
        with_boxes = energy.new_tensor(sum(len(own) > 0 for own in boxes) / len(boxes))
        loss = cross_entropy + self.settings.weight * energy
        terms = {"cross_entropy": cross_entropy, "energy": energy, "with_boxes": with_boxes}
        return step_output(batch.labels, found.logits[: len(batch)], loss, **terms)


def boxes_of(batch: Batch) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The boxes `[M,4]` of the plain images and of the first transformed ones, in pixels of each."""
    if batch.boxes is None:
        raise ArgumentError("`batch` has no boxes: say so in the step's `wants`, or make it with `boxes`.")
    crop = batch.views[0].crop
    return list(batch.boxes), [warp_boxes(boxes, crop, index) for index, boxes in enumerate(batch.boxes)]


def _mask(boxes: NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """The pixels [H,W] whose centre is in one of the boxes."""
    return object_mask(boxes, size) if len(boxes) else torch.zeros(size, dtype=torch.bool)
