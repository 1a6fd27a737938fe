"""Contrastive Grad-CAM consistency (Pillai et al., CVPR 2022)."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from contrex import ranks
from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain import Explainer, Explanation, HiResCAM
from contrex.losses import cgc_loss, l2_consistency_loss
from contrex.methods.layer_views import LayerViews
from contrex.methods.phase import Plan
from contrex.methods.step import (
    ExplainingStep,
    StepOutput,
    Wants,
    logits_of,
    softmax_cross_entropy,
    step_output,
    transformed_of,
    view_cross_entropy,
    views_of,
)
from contrex.models import Classifier
from contrex.settings import CGC, CGCNoNegatives, Recipe, Retrofit, Views


class ConsistencyStep(ExplainingStep):
    """`L = L_CE + lambda * consistency( T(g(x)), g(T(x)) )`, g for the class top-predicted on the plain image.

    g is the element-wise form of Grad-CAM (HiResCAM), as in the published code. Plain and transformed images share one
    forward pass; the published code runs them separately, which differs only in batch-norm's statistics. Of our own:
    g may be for the label (`explained`), the consistency may begin after a share of the epochs (`consistency_after`),
    and the view may be one of what a layer gives (`view_layer`).

    With unlabelled images (section 4.3) the labelled ones have the cross-entropy and the unlabelled ones the
    consistency, each for its own top class: `L = L_CE(labelled) + lambda * consistency(unlabelled)`. These are two
    forward passes, first the labelled: batch norm normalises each with its own statistics, the cross-entropy is the
    baseline's, and running statistics are of both. The published code has a third pass, for the transformed unlabelled
    images.
    """

    wants = Wants(unlabelled_views=1)

    def __init__(
        self, classifier: Classifier, settings: CGC | CGCNoNegatives | Retrofit, explainer: Explainer | None = None
    ) -> None:
        super().__init__(classifier)
        self.settings = settings
        if settings.variant == "published-code":
            self.wants = Wants(views=2, unlabelled_views=1, views_beside_unlabelled=1)
        self._explainer = explainer or HiResCAM(classifier.network, settings.layer)
        self._num_epochs: int | None = None
        # methods from outside have settings of their own
        self._explains_label = getattr(settings, "explained", "prediction") == "label"
        name = getattr(settings, "view_layer", None)
        self._layer_views = None if name is None else LayerViews(self.network, name, self._explainer)
        if name is not None:
            self.wants = replace(self.wants, pixels=False)

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: explain both views, put one map into the frame of the other, compare them."""
        if self.epoch < self._first_epoch():
            cross_entropy, logits = self.classified(batch, self.settings.views)
            return step_output(batch.labels, logits, cross_entropy, cross_entropy=cross_entropy)
        if batch.unlabelled is not None:
            return self._with_unlabelled(batch, batch.unlabelled)
        batch = with_fewer_views(batch, self.settings)
        g, num = self._explain(batch), len(batch)
        logits, logits_view = g.logits[:num], g.logits[num:]
        heatmaps_view = g.heatmap[num:]
        heatmaps = g.heatmap[: len(heatmaps_view)]
        consistency = self.consistency(heatmaps, heatmaps_view, batch)
        cross_entropy = self._cross_entropy(logits, logits_view, batch)
        loss = cross_entropy + self.settings.weight * consistency
        return step_output(batch.labels, logits, loss, cross_entropy=cross_entropy, consistency=consistency)

    def plan(self, recipe: Recipe) -> Plan:
        """One phase.

        Raises:
            ArgumentError: the label is to be explained, of images without one, or views of a layer are to have colours.
        """
        if recipe.labelled.has_unlabelled and self._explains_label:
            raise ArgumentError(
                "`method.explained` label: the images that are explained have no labels here. Take prediction."
            )
        if self._layer_views is not None and recipe.augmentation.recolours:
            raise ArgumentError(
                f"`method.view_layer` {self._layer_views.name} makes views of what a layer gives, without colours, and "
                "`augmentation` changes those of views: set color_jitter and grayscale to 0, or leave it out."
            )
        self._num_epochs = recipe.training.epochs
        return super().plan(recipe)

    def looked_into(self, images: Tensor) -> Sequence[nn.Module]:
        """The layer of the views, where one is named, and the explained one."""
        explained = super().looked_into(images)
        if self._layer_views is None:
            return explained
        return [self.network.get_submodule(self._layer_views.layer(self.normalise(images))), *explained]

    def classified(self, batch: Batch, views: Views) -> tuple[Tensor, Tensor]:
        """As every step does; the transformed images are what is seen for them."""
        if self._layer_views is None or views == "plain":
            return super().classified(batch, views)
        with self._seen(batch) as images:
            logits = logits_of(self.network, images)
        plain, transformed = logits[: len(batch)], logits[len(batch) :]
        entropy = view_cross_entropy(plain, transformed, batch.labels, views)
        return entropy, transformed if views == "transformed" else plain

    def _first_epoch(self) -> int:
        """The first epoch with consistency, from 0; the last one has it always."""
        share = getattr(self.settings, "consistency_after", 0.0)  # a retrofit has none
        if not share:
            return 0
        if self._num_epochs is None:
            raise ArgumentError(
                f"`method.consistency_after` {share} is a share of the epochs of a run, and this step is in none: call "
                "`plan(recipe)` first, or take 0 and weight the consistency yourself."
            )
        return min(round(share * self._num_epochs), self._num_epochs - 1)

    def _with_unlabelled(self, batch: Batch, unlabelled: Batch) -> StepOutput:
        """The loss of a batch with both: cross-entropy of labelled images, as `views` says, consistency of others."""
        cross_entropy, logits = self.classified(batch, self.settings.views)
        unlabelled = with_fewer_views(unlabelled, self.settings)
        heatmaps = self._explain(unlabelled).heatmap
        heatmaps_view = heatmaps[len(unlabelled) :]
        heatmaps = heatmaps[: len(heatmaps_view)]
        consistency = self.consistency(heatmaps, heatmaps_view, unlabelled)
        loss = cross_entropy + self.settings.weight * consistency
        return step_output(batch.labels, logits, loss, cross_entropy=cross_entropy, consistency=consistency)

    @abstractmethod
    def consistency(self, heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch) -> Tensor:
        """The consistency loss between raw maps `[N,h,w]` of the plain and of the transformed images."""

    def _explain(self, batch: Batch) -> Explanation:
        """Maps and logits `[N+n]` of the N plain and the n transformed images, for the class of each plain image."""
        with self._seen(batch) as images:
            return self._explained(images, batch)

    def _explained(self, images: Tensor, batch: Batch) -> Explanation:
        """`_explain` of the normalised images of a batch, `[N+n,3,S,S]`."""
        num = len(batch)

        def of_plain(logits: Tensor) -> Tensor:
            # The view's map is for the plain image's class: a crop may look like another, and maps of two classes
            # differ.
            explained = batch.labels if self._explains_label else logits[:num].argmax(1)
            return torch.cat([explained, explained[: len(logits) - num]])

        return self._explainer(images, target=of_plain, contrast=self.settings.contrast, differentiable=True)

    @contextlib.contextmanager
    def _seen(self, batch: Batch) -> Iterator[Tensor]:
        """The normalised images `[N+n,3,S,S]` to call the network with for the plain ones and their views, inside."""
        if self._layer_views is None:
            yield self.normalise(torch.cat(views_of(batch)))
            return
        with self._layer_views.seen(self.normalise(batch.images), batch.views[0].crop) as images:
            yield images

    def _cross_entropy(self, logits: Tensor, logits_view: Tensor, batch: Batch) -> Tensor:
        """The paper's one term, or the published code's three: another augmented copy, plain and transformed."""
        labels = batch.labels
        if self.settings.variant == "paper":
            return view_cross_entropy(logits, logits_view, labels, self.settings.views)
        extra = self.logits(transformed_of(batch, 2)[1])
        return torch.stack([softmax_cross_entropy(y, labels) for y in (extra, logits, logits_view)]).sum()


class CGCStep(ConsistencyStep):
    """CGC: consistency is contrastive, against the other images of the batch and a queue of past heatmaps.

    In a run of several processes the other images are those of all of them, as the paper's equation has it, and the
    queue is the same in each. The published code contrasts within a GPU, and so does `variant="published-code"`: the
    images of one process are its negatives, and the loss is not that of one process with the whole batch.
    """

    settings: CGC | Retrofit
    queue: Tensor
    has_negatives = True

    def __init__(self, classifier: Classifier, settings: CGC | Retrofit, explainer: Explainer | None = None) -> None:
        super().__init__(classifier, settings, explainer)
        # A buffer, so that checkpoints keep it: a resumed run has the negatives of an unbroken one.
        self.register_buffer("queue", torch.empty(0))

    def consistency(self, heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch) -> Tensor:
        """`cgc_loss` with its settings."""
        everyones = self._everyones(heatmaps_view)
        negatives = [*self._others(everyones), *([self.queue] if len(self.queue) else [])]
        loss = cgc_loss(
            heatmaps,
            heatmaps_view,
            batch.views[0].crop,
            temperature=self.settings.temperature,
            size=self.settings.resolution,
            variant=self.settings.variant,
            extra_negatives=torch.cat(negatives) if negatives else None,
        )
        if self.settings.queue and self.training:
            self._enqueue(torch.cat(everyones).detach())
        return loss

    def _everyones(self, heatmaps_view: Tensor) -> list[Tensor]:
        """The maps of all processes, where the loss or the queue needs them."""
        if self.settings.variant == "paper":
            # Sync point. Gradients go back to the process that made a map, so the mean over processes is the whole
            # batch's.
            return ranks.gathered_rows(heatmaps_view)
        # Only for the queue, so without a graph.
        return ranks.gathered_rows(heatmaps_view.detach()) if self.settings.queue else [heatmaps_view]

    def _others(self, everyones: list[Tensor]) -> list[Tensor]:
        """The maps of the other processes, which are negatives beside this process' own."""
        if self.settings.variant == "published-code":
            return []
        return [maps for number, maps in enumerate(everyones) if number != ranks.rank()]

    def _enqueue(self, heatmaps: Tensor) -> None:
        """Put maps at the front of the queue; the oldest fall out."""
        queued = torch.cat([heatmaps, self.queue]) if len(self.queue) else heatmaps
        self.queue = queued[: self.settings.queue]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Let a checkpoint with a filled queue into a new step."""
        if f"{prefix}queue" in state_dict:
            self.queue = torch.empty_like(state_dict[f"{prefix}queue"], device=self.queue.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CGCNoNegativesStep(ConsistencyStep):
    """CGC without negatives (the ablation of Table 5): the positive pair alone, which a uniform map satisfies too."""

    settings: CGCNoNegatives

    def consistency(self, heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch) -> Tensor:
        """`l2_consistency_loss` with its settings."""
        return without_negatives(heatmaps, heatmaps_view, batch, self.settings)


def without_negatives(
    heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch, settings: CGCNoNegatives | Retrofit
) -> Tensor:
    """`l2_consistency_loss` as `settings` have it, of raw maps `[N,h,w]` of the plain and the transformed images."""
    return l2_consistency_loss(
        heatmaps, heatmaps_view, batch.views[0].crop, size=settings.resolution, variant=settings.variant
    )


def with_fewer_views(batch: Batch, settings: object) -> Batch:
    """The batch with the views of `settings.views_share` of its images, the first ones: their order is random."""
    share = getattr(settings, "views_share", 1)  # methods from outside have settings of their own
    if share == 1:
        return batch
    some = slice(math.ceil(share * len(batch)))
    return replace(batch, views=tuple(view.part(some) for view in batch.views))
