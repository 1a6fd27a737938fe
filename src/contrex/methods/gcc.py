"""Grad-CAM consistency on composites (GCC: Pillai and Pirsiavash, AAAI 2021), the baseline of CGC's Table 1."""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.data.views.batch import Batch
from contrex.data.views.composites import composites
from contrex.errors import ArgumentError, ContrexError
from contrex.explain import Explanation, HiResCAM
from contrex.losses import gcc_loss
from contrex.methods.step import (
    ExplainingStep,
    Shown,
    StepOutput,
    Wants,
    step_output,
    view_cross_entropy,
    views_of,
)
from contrex.models import Classifier
from contrex.settings import GCC


class GCCStep(ExplainingStep):
    """`L = L_CE + lambda * gcc_loss( g(T(x)), g(composite) )`, g for the ground-truth class.

    The composite has twice the side, so that its map is twice as large, and holds the very pixels of the transformed
    view T(x); its partners are transformed for themselves. g is the element-wise form of Grad-CAM (HiResCAM), as in the
    published code. Images and composites are two forward passes, as their sizes differ: batch norm sees both.

    Raises `ArgumentError` where the network takes images of one size only.
    """

    wants = Wants(composites=True)

    def __init__(self, classifier: Classifier, settings: GCC) -> None:
        super().__init__(classifier)
        self.settings = settings
        self._explainer = HiResCAM(classifier.network, settings.layer)
        self._took_composites = False

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch, from the maps of views and composites; plain images are classified only where the
        cross-entropy asks."""
        images, views = views_of(batch)
        composites, cells = composites_of(batch)
        seen = [views] if self.settings.views == "transformed" else [images, views]
        whole = self._explain(torch.cat(seen), batch.labels.repeat(len(seen)))
        logits, heatmaps = whole.logits.chunk(len(seen)), whole.heatmap.chunk(len(seen))
        consistency = gcc_loss(heatmaps[-1], self._explain_composites(composites, batch.labels).heatmap, cells)
        cross_entropy = view_cross_entropy(logits[0], logits[-1], batch.labels, self.settings.views)
        loss = cross_entropy + self.settings.weight * consistency
        return step_output(batch.labels, logits[0], loss, cross_entropy=cross_entropy, consistency=consistency)

    def shown(self, batch: Batch) -> Shown:
        """The views and their composites."""
        return Shown({"view": views_of(batch)[1], "composite": composites_of(batch)[0]})

    def _explain_composites(self, composites: Tensor, labels: Tensor) -> Explanation:
        try:
            found = self._explain(composites, labels)
        except (ContrexError, torch.OutOfMemoryError):
            raise
        except (AssertionError, RuntimeError, ValueError) as error:  # what networks of one size say of another
            if self._took_composites:
                raise
            side, name = composites.shape[-1], type(self.network).__name__
            raise ArgumentError(
                f"GCC's composites have twice the side of the images, {side} x {side}, and {name}, which took the "
                f"images, did not take them ({error}). Use a network for any size, as CNNs with pooling are, or for a "
                "timm ViT `--model.options dynamic_img_size True`."
            ) from error
        self._took_composites = True
        return found

    def _explain(self, images: Tensor, labels: Tensor) -> Explanation:
        contrast = self.settings.contrast
        return self._explainer(self.normalise(images), target=labels, contrast=contrast, differentiable=True)


def composites_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Compose the views of a batch that is on its device with their company; the composites, and the cells of the
    views in them."""
    if batch.company is None:
        raise ArgumentError(
            "`batch` has no company to compose: make it with `composite=True` and call `batch.to(device)` first."
        )
    cells = batch.company.cells
    return composites(views_of(batch)[1], batch.company.view.made(), cells), cells
