"""Supervised contrastive learning of an encoder (Khosla et al., NeurIPS 2020), and a linear classifier on it.

ExCon (ICLR 2022 submission, Algorithm 1) trains the two in turns, an epoch each; the original trains the encoder fully
first. Encoder, projection head and classifier: the encoder is the network up to its last linear layer, the classifier.

Legend: N images, D features or embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain.forward.head import forward_features
from contrex.losses import supcon_loss
from contrex.methods.phase import Phase, Plan
from contrex.methods.step import (
    Shown,
    Step,
    StepOutput,
    Wants,
    softmax_cross_entropy,
    step_output,
    two_views_of,
    views_of,
)
from contrex.models import Classifier, ProjectionHead, classifier_head
from contrex.settings import LinearClassifier, Recipe, SupCon


class SupConStep(Step):
    """The encoder's phase: `supcon_loss` of the projected features of two random views of each image."""

    wants = Wants(views=2)
    needs_labels = "its encoder and its classifier are trained on the same images"
    has_negatives = True

    def __init__(self, classifier: Classifier, settings: SupCon) -> None:
        super().__init__(classifier)
        self.settings = settings
        self._head_name, head = classifier_head(self.network)
        self.projection = ProjectionHead(head.in_features, dim_out=settings.projection_dim).to(head.weight)

    @property
    def head(self) -> nn.Linear:
        """The classifier: the network's last linear layer."""
        return cast("nn.Linear", self.network.get_submodule(self._head_name))

    def plan(self, recipe: Recipe) -> Plan:
        """The encoder's phase and the classifier's, in turns or one after the other (`settings.order`)."""
        return supcon_plan(self, recipe)

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: encode and project both views in one forward pass, and contrast them."""
        first, second = two_views_of(batch)
        loss = self.contrast(self.normalise(torch.cat([first, second])), batch.labels)
        return StepOutput(loss, {"loss": loss.detach()})

    def looked_into(self, images: Tensor) -> Sequence[nn.Module]:
        """The classifier, whose input is what is projected."""
        return [self.head]

    def contrast(self, views: Tensor, labels: Tensor, num_background: int = 0) -> Tensor:
        """The loss of normalised `views`: all first ones, all second ones, then each background image.

        A background image stands for both of its views: the published code appends it twice. The images of the other
        processes are contrasted with too; each process may have another number of background images.
        """
        embeddings: Tensor = self.projection(forward_features(self.network, views, self.head)[0])
        num = len(labels)
        real = torch.stack(embeddings[: 2 * num].chunk(2), dim=1)
        background = embeddings[2 * num :]
        if len(background) == num_background:
            background = background[:, None].expand(-1, 2, -1)
        else:
            background = torch.stack(background.chunk(2), dim=1)
        real, background, labels = with_everyones(real, background, labels)
        everything = torch.cat([real, background])
        if bool(everything.isnan().any()):  # on all processes alike; the loop says which images it comes from
            return everything.sum()
        return supcon_loss(
            everything,
            labels if self.settings.labels else None,
            temperature=self.settings.temperature,
            base_temperature=self.settings.base_temperature,
            num_background=len(background),
            num_anchors=num,
        )

    def shown(self, batch: Batch) -> Shown:
        """The images with their two views."""
        first, second = two_views_of(batch)
        return Shown({"image": batch.images, "view 1": first, "view 2": second})


def with_everyones(real: Tensor, background: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings `[n,V,D]`, background `[B,V,D]` and labels `[n]` of all processes, this one's images first; gradients
    find their way back to the process that made them."""
    if not ranks.is_distributed():
        return real, background, labels
    # Sync points: two exchanges, of embeddings and of labels. Background images differ in number, hence `equal=False`.
    num, rows = len(real), torch.cat([real, background])
    everyones = ranks.gathered_rows(rows.to(torch.promote_types(rows.dtype, torch.float32)), equal=False)
    order = [ranks.rank(), *(number for number in range(ranks.world_size()) if number != ranks.rank())]
    all_labels = ranks.gathered_rows(labels)
    return (
        torch.cat([everyones[number][:num] for number in order]),
        torch.cat([part[num:] for part in everyones]),
        torch.cat([all_labels[number] for number in order]),
    )


class ClassifierStep(Step):
    """The classifier's phase: cross-entropy of the linear classifier on the features of the frozen encoder."""

    def __init__(self, encoder: SupConStep, classifier: Classifier, settings: LinearClassifier) -> None:
        super().__init__(classifier)
        self.settings = settings
        self._encoder = [encoder]  # not a submodule: its parameters are the encoder's
        self._features: dict[int, Tensor] = {}

    def train(self, mode: bool = True) -> ClassifierStep:
        """The encoder stays in eval mode: its batch norms neither use nor see the batch."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: classify its features, which have no gradients, and take the cross-entropy."""
        with torch.no_grad():
            features = self._cached(batch) if self.settings.cache_features else self._computed(batch)
        torch.clear_autocast_cache()  # of weights that were cast without gradients, which older torches would use below
        logits = self._encoder[0].head(features)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return step_output(batch.labels, logits, softmax_cross_entropy(logits, batch.labels))

    def _computed(self, batch: Batch) -> Tensor:
        plain, transformed = views_of(batch)
        images = plain if self.settings.views == "plain" else transformed
        return forward_features(self.network, self.normalise(images), self._encoder[0].head)[0]

    def _cached(self, batch: Batch) -> Tensor:
        """The features of plain images, computed when first asked for: the encoder does not change any more."""
        if batch.indices is None:
            raise ArgumentError("`batch` has no indices, so its features cannot be kept: set no `cache_features`.")
        indices = batch.indices.tolist()
        if not all(index in self._features for index in indices):
            self._features |= dict(zip(indices, self._computed(batch), strict=True))
        return torch.stack([self._features[index] for index in indices])


def supcon_plan(step: SupConStep, recipe: Recipe) -> Plan:
    """The plan of `step`: its encoder, and the classifier on it."""
    settings, epochs, linear = step.settings, recipe.training.epochs, step.settings.classifier
    trained, own = step.trained_parameters(), set(step.head.parameters())
    head, rest = [p for p in trained if p in own], [p for p in trained if p not in own]
    kept = step.kept_in_eval()
    crops = replace(recipe.augmentation, color_jitter=(0.0, 0.0, 0.0, 0.0), grayscale=0.0)
    encoder = Phase(
        name="encoder",
        step=step,
        parameters=rest,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        augmentation=recipe.augmentation,
        epochs=epochs,
        frozen=kept,
        trains_classifier=False,
    )
    last = Phase(
        name="classifier",
        step=ClassifierStep(step, step.classifier, linear),
        parameters=head,
        optimizer=linear.optimizer or recipe.optimizer,
        schedule=linear.schedule or recipe.schedule,
        augmentation=crops,
        epochs=linear.epochs or epochs,
        frozen=kept,
    )
    order: Sequence[Sequence[int]] = (
        [[0, 1]] * epochs if settings.order == "alternating" else [[0]] * epochs + [[1]] * last.epochs
    )
    return Plan([encoder, last], order)
