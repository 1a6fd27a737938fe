"""ExCon and ExConB: the explanation of an image as one of its views (ICLR 2022 submission, sections 3.3 and 3.4).

From `starting_epoch` on, each plain image is explained for its label and only what its heatmap points at is kept. Where
the classifier is right on that, it is the first view; where it is wrong, the first view stays random and, in ExConB,
the masked image becomes background, a negative of every anchor. The second view is always random.

Legend: N images, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain.named import build_explainer
from contrex.methods.phase import Plan
from contrex.methods.step import Shown, StepOutput, explained_layer, two_views_of
from contrex.methods.supcon import SupConStep
from contrex.models import Classifier, eval_mode, model_logits
from contrex.ops import scores
from contrex.ops.pixels import explanation_mask, masked_images
from contrex.settings import ExCon, Recipe


class ExConStep(SupConStep):
    """`supcon_loss` where the first view of an image is what explains it.

    Explaining and checking run in eval mode and leave no trace: no batch-norm statistics, no random numbers, no graph.
    They cost two forward passes, of the plain and of the masked images, and the backward pass behind the layer. The
    published code runs them in train mode (`variant="published-code"`).
    """

    settings: ExCon

    def __init__(self, classifier: Classifier, settings: ExCon) -> None:
        super().__init__(classifier, settings)
        self._explainer = build_explainer(self.network, settings.explainer, settings.layer)
        self._in_train_mode = self.explains_in_training = settings.variant == "published-code"
        if self._in_train_mode and not self._explainer.is_differentiable:
            raise ArgumentError(
                f"`method.explainer` {settings.explainer} runs in eval mode only, and `method.variant` published-code "
                "explains in train mode: take variant paper, or grad_cam."
            )

    def plan(self, recipe: Recipe) -> Plan:
        """Those of SupCon.

        Raises:
            ArgumentError: the run ends before its explained views begin.
        """
        start, epochs = self.settings.starting_epoch, recipe.training.epochs
        if start >= epochs:
            raise ArgumentError(
                f"`method.starting_epoch` {start} is never reached in `training.epochs` {epochs}, so this would be "
                f"SupCon: take {epochs // 2}, or more epochs."
            )
        return super().plan(recipe)

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: explain, mask, check whether the class is kept, choose views, and contrast them in one
        pass."""
        if self.epoch < self.settings.starting_epoch:
            return super().forward(batch)
        first, second = map(self.normalise, two_views_of(batch))
        masked, is_right = self.explained_views(batch)
        # In older torches autocast gives weights that were cast without gradients to passes that need them.
        torch.clear_autocast_cache()
        first = torch.where(is_right[:, None, None, None], masked, first)
        # Waits for the device: how many are wrong is the size of a tensor.
        background = masked[~is_right] if self.settings.background else masked[:0]
        num_background = len(background)
        if self._in_train_mode:
            # The published code sends each through the encoder twice, and batch norm counts both.
            background = torch.cat([background, background])
        loss = self.contrast(torch.cat([first, second, background]), batch.labels, num_background)
        return StepOutput(loss, {"loss": loss.detach(), "explained": is_right.float().mean()})

    @property
    def explains(self) -> str | None:
        """The explained layer and its grid."""
        return self._explainer.place

    def looked_into(self, images: Tensor) -> Sequence[nn.Module]:
        """The explained layer and the classifier."""
        return [explained_layer(self._explainer, self.normalise(images)), self.head]

    def explained_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The masked plain images [N,3,H,W], normalised, and whether the classifier is right on each [N]."""
        images = self.normalise(batch.images)
        found = self._explainer(
            images, target=batch.labels, contrast=self.settings.contrast, differentiable=self._in_train_mode
        )
        size = (images.shape[2], images.shape[3])
        # Detached: which pixels are above a threshold has no gradient, and in train mode the graph would stay in
        # memory.
        mask = explanation_mask(found.heatmap.detach(), size, threshold=self.settings.threshold)
        masked = masked_images(images, mask)
        return masked, self._predicted(masked) == batch.labels

    def _predicted(self, images: Tensor) -> Tensor:
        mode = nullcontext() if self._in_train_mode else eval_mode(self.network)
        with torch.no_grad(), mode:
            logits = model_logits(self.network, images)
        return scores.predicted(logits)

    def shown(self, batch: Batch) -> Shown:
        """The images, what their explanations keep of them, and the views that are trained on."""
        random = super().shown(batch)
        if self.epoch < self.settings.starting_epoch or self._in_train_mode:
            return random  # explaining in train mode would move batch-norm statistics
        masked, is_right = self.explained_views(batch)
        masked = self.denormalise(masked)
        first = torch.where(is_right[:, None, None, None], masked, random.rows["view 1"])
        rows = {"image": batch.images, "masked": masked, "view 1": first, "view 2": random.rows["view 2"]}
        return Shown(rows, is_right.tolist())
