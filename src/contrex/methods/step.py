"""What every training method is: one module whose forward takes a batch and returns a loss.

Everything that needs a gradient - all views, both losses - happens inside that one forward, so the step can be wrapped
by DDP, Fabric or Accelerate. In a run of several processes each takes its share of the batch; contrastive losses take
the mean over the process' own anchors, and negatives from all processes (`contrex.ranks.gathered_rows`), so the mean of
the processes' gradients is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.data.views import Batch
from contrex.errors import ArgumentError
from contrex.explain import LayerExplainer
from contrex.models import Classifier, check_classifier
from contrex.models.outputs import auxiliary_classifiers, check_no_auxiliary, read_logits
from contrex.settings import Views


@dataclass(frozen=True, eq=False)
class StepOutput:
    """The scalar `loss` to minimise, and detached scalars worth logging, the loss terms among them."""

    loss: Tensor
    logs: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a step trains on, for a person to look at: rows of images [N,3,H,W] in [0, 1] by name, and which of them the
    classifier gets right on its explanation, where that is asked."""

    rows: Mapping[str, Tensor]
    is_right: Sequence[bool] | None = None


class Step(nn.Module):
    """A training objective around a classifier. Subclasses implement `forward(batch) -> StepOutput`."""

    needs_extra_views = False
    """Whether the batch must carry a second, independent set of views."""

    needs_composites = False
    """Whether the batch must carry composites of its images with images of other classes."""

    needs_labels: str | None = "its loss needs the label of each image"
    """Why it takes no images without labels; None where it takes some, `batch.unlabelled` if that is there."""

    has_negatives = False
    """Whether the loss of an image depends on the other images of its batch, so that parts of a batch do not add up."""

    explains_in_training = False
    """Whether its forward differentiates a part of the network that it trains."""

    epoch: int = 0
    """The epoch that is being trained, from 0."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        check_classifier(classifier.network)
        if getattr(classifier.network, "aux_logits", False):  # before a method explains the network and sees no others
            raise auxiliary_classifiers(classifier.network)
        self.network = classifier.network
        self.normalise = classifier.normalise
        self.denormalise = classifier.denormalise

    def begin_epoch(self, epoch: int) -> None:
        """The loop calls it before the first batch of an epoch, also when it resumes within it."""
        self.epoch = epoch

    @property
    def explains(self) -> str | None:
        """Which layer was explained last, in words; None where the method explains nothing, or nothing yet."""
        return None

    def looked_into(self, images: Tensor) -> Sequence[nn.Module]:
        """The layers of the network whose outputs the step looks at or differentiates within its forward, in the order
        in which they run; `images` [N,3,S,S] are pixel values. Everything before the first may be compiled."""
        return ()

    def shown(self, batch: Batch) -> Shown | None:
        """The views of a batch as they are trained on, or None where there is nothing to see but crops.

        It leaves no trace in the network and draws no random numbers."""
        return None

    def logits(self, images: Tensor) -> Tensor:
        """The network's logits for pixel values in [0, 1], float32 or better also under autocast."""
        output = self.network(self.normalise(images))
        check_no_auxiliary(output, self.network)
        logits = read_logits(output, self.network, len(images))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def classified(self, batch: Batch, views: Views) -> tuple[Tensor, Tensor]:
        """The cross-entropy of the labelled images as `views` says, and the logits [N,K] of the plain ones (of the
        transformed ones where it sees no others), in one forward pass."""
        images, transformed = views_of(batch)
        seen = {"plain": [images], "transformed": [transformed], "both": [images, transformed]}[views]
        logits = self.logits(torch.cat(seen)).chunk(len(seen))
        return view_cross_entropy(logits[0], logits[-1], batch.labels, views), logits[0]

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of one batch on the device, pixel values in [0, 1]."""
        raise NotImplementedError


def views_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The plain and the transformed images of a batch that is on its device."""
    if batch.views is None:
        raise ArgumentError("`batch` has no views yet: call `batch.to(device)` first.")
    return batch.images, batch.views


def two_views_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The two sets of transformed images of a batch that is on its device."""
    if batch.views is None or batch.extra_views is None:
        raise ArgumentError("`batch` has no two views: make it with `extra=True` and call `batch.to(device)` first.")
    return batch.views, batch.extra_views


def view_cross_entropy(logits: Tensor, logits_view: Tensor, labels: Tensor, views: Views) -> Tensor:
    """Cross-entropy of the plain images, of the transformed ones, or the mean of both."""
    if views == "plain":
        return softmax_cross_entropy(logits, labels)
    if views == "transformed":
        return softmax_cross_entropy(logits_view, labels)
    return softmax_cross_entropy(torch.cat([logits, logits_view]), torch.cat([labels, labels]))


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the softmax over at least two logits [N,K].

    Raises:
        ArgumentError: there is one logit, whose softmax is 1 and whose loss is 0, whatever the network says.
    """
    if logits.shape[1] < 2:
        raise ArgumentError(
            "training takes the cross-entropy of a softmax, which is 0 for a network of one logit, whatever it says: "
            "give it two logits (`model.num_classes` 2, and labels of two classes)."
        )
    return F.cross_entropy(logits, labels)


def step_output(labels: Tensor, logits: Tensor, loss: Tensor, **terms: Tensor) -> StepOutput:
    """The output with the loss, its terms and the accuracy of `logits` (of the plain images where it sees them)."""
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return StepOutput(loss, {"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}, "accuracy": accuracy})


def explained_layer(explainer: LayerExplainer, images: Tensor) -> nn.Module:
    """The layer that `explainer` looks at, found in normalised `images` where none was named."""
    explainer(images)
    return explainer.model.get_submodule(str(explainer.layer))
