"""What every training method is: one module whose forward takes a batch and returns a loss.

Everything that needs a gradient - all views, both losses - happens inside that one forward, so the step can be wrapped
by DDP, Fabric or Accelerate. In a run of several processes each takes its share of the batch; contrastive losses take
the mean over the process' own anchors, and negatives from all processes (`contrex.ranks.gathered_rows`), so the mean of
the processes' gradients is that of one process with the whole batch.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain import ActivationExplainer, Explainer
from contrex.methods.phase import Plan, one_phase
from contrex.models import Classifier, check_classifier
from contrex.models.outputs import auxiliary_classifiers, check_no_auxiliary, read_logits
from contrex.settings import Recipe, Views
from contrex.settings.ranges import check_at_least


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


@dataclass(frozen=True)
class Wants:
    """What a step wants in a batch beside the plain images and their labels.

    Raises `ArgumentError` for fewer views than there can be.
    """

    views: int = 1
    """Sets of transformed images, each with its own crops and colours: `batch.views`."""
    unlabelled_views: int = 0
    """Sets of transformed images of each image without a label, in `batch.unlabelled`; 0 takes no such images."""
    views_beside_unlabelled: int | None = None
    """`views` where there are images without labels beside them; None as many as without."""
    labels: bool = True
    """Whether it needs the labels of its images; otherwise a data set without labels will do."""
    composites: bool = False
    """Images of other classes to compose the first view with, `batch.company`."""
    boxes: float = 0.0
    """The share of the labelled images whose boxes it wants, `batch.boxes`, drawn by seed and image; 0 reads none."""
    pixels: bool = True
    """Whether it looks at the transformed images; otherwise views say how to transform, and no pixels are made."""

    def __post_init__(self) -> None:
        check_at_least(1, "wants", views=self.views, views_beside_unlabelled=self.views_beside_unlabelled)
        check_at_least(0, "wants", unlabelled_views=self.unlabelled_views)

    def num_views(self, *, beside_unlabelled: bool) -> int:
        """How many sets of transformed images it wants of the labelled ones."""
        other = self.views_beside_unlabelled
        return self.views if other is None or not beside_unlabelled else other


class _Renamed:
    """An old name of something in `wants`, which answers with a warning."""

    def __init__(self, name: str, now: str, answer: Callable[[Wants], bool]) -> None:
        self._warning = f"`{name}` is `{now}` now."
        self._answer = answer

    def __get__(self, step: Step | None, kind: type[Step] | None = None) -> Any:
        if step is None:  # whoever looks over the class asks no step
            return self
        warnings.warn(self._warning, DeprecationWarning, stacklevel=2)
        return self._answer(step.wants)


class Step(nn.Module, ABC):
    """A training objective around a classifier. Subclasses implement `forward(batch) -> StepOutput`.

    Its life: `plan` says how a run trains it; then, for each epoch, `begin_epoch`, and for each step `forward`, once or
    for each part of the batch, and `after_step`. Buffers and parameters are its state, which checkpoints keep.
    """

    wants = Wants()
    """What must be in its batches."""

    needs_extra_views = _Renamed("needs_extra_views", "wants.views > 1", lambda wants: wants.views > 1)
    needs_composites = _Renamed("needs_composites", "wants.composites", lambda wants: wants.composites)

    needs_labels: str = "its loss needs the label of each image"
    """Why it takes no images without labels, where it does not (`wants.unlabelled_views` is 0)."""

    has_negatives = False
    """Whether the loss of an image depends on the other images of its batch, so that parts of a batch do not add up."""

    explains_in_training = False
    """Whether its forward differentiates a part of the network that it trains."""

    reference: nn.Module | None = None
    """The network whose predictions stand in for labels where the validation images have none: a property of a step
    that has one among its modules."""

    tolerance: float | None = None
    """How many of the reference's decisions with a probability of at least `sure` must stay on the validation images,
    in %; when fewer do at the end of a run, it goes back towards `began_as`, on a straight line."""
    began_as: nn.Module | None = None
    """The network as it was before the run: a property of a step that has it among its modules."""
    sure: float = 0.5
    rescales: bool = False
    """Whether the logits are multiplied, at the end of a run, by the number that brings probabilities nearest to the
    reference's on the validation images."""

    epoch: int = 0
    """The epoch that is being trained, from 0."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        check_classifier(classifier.network)
        if getattr(classifier.network, "aux_logits", False):  # before a method explains the network and sees no others
            raise auxiliary_classifiers(classifier.network)
        self.classifier = classifier
        self.network = classifier.network
        self.normalise = classifier.normalise
        self.denormalise = classifier.denormalise

    def plan(self, recipe: Recipe) -> Plan:
        """The phases of a run with this step: one that trains `trained_parameters()`, where a method does not say
        otherwise."""
        return one_phase(self, recipe)

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that training moves: those that require gradients now, before the run begins. What a step
        freezes when it is made, such as a teacher, stays frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def kept_in_eval(self) -> list[nn.Module]:
        """The modules that stay in eval mode while the others train, with all in them: those that are in it now, before
        the run begins, such as a teacher. A network that is in it as a whole has been evaluated, and trains."""
        left = set() if self.network.training else set(self.network.modules())
        return [module for module in self.modules() if not (module.training or module is self or module in left)]

    def begin_epoch(self, epoch: int) -> None:
        """Get ready for an epoch: called before its first batch, also when a run resumes within it."""
        self.epoch = epoch

    def after_step(self, number: int) -> None:
        """Act after optimiser step `number` (from 1) of the step's phase, without gradients: teachers
        follow, queues move on. Once in each step, also with `training.accumulate`, and in all processes, which hold the
        same weights and running statistics then and must do the same."""

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
        return logits_of(self.network, self.normalise(images))

    def classified(self, batch: Batch, views: Views) -> tuple[Tensor, Tensor]:
        """The cross-entropy of the labelled images as `views` says, and the logits [N,K] of the plain ones (of the
        transformed ones where it sees no others), in one forward pass."""
        seen = [] if views == "transformed" else [batch.images]
        seen += [] if views == "plain" else transformed_of(batch, 1)
        logits = self.logits(torch.cat(seen)).chunk(len(seen))
        return view_cross_entropy(logits[0], logits[-1], batch.labels, views), logits[0]

    @abstractmethod
    def forward(self, batch: Batch) -> StepOutput:
        """The loss of one batch on the device, pixel values in [0, 1]."""


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """The logits of `network` in training for normalised images, float32 or better also under autocast."""
    output = network(images)
    check_no_auxiliary(output, network)
    logits = read_logits(output, network, len(images))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class ExplainingStep(Step):
    """Explain the network in each step, by one explainer whose maps the loss differentiates."""

    explains_in_training = True
    _explainer: Explainer

    @property
    def explains(self) -> str | None:
        """The explained layer and its grid."""
        return self._explainer.place

    def looked_into(self, images: Tensor) -> Sequence[nn.Module]:
        """The explained layer."""
        return [explained_layer(self._explainer, self.normalise(images))]


def views_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The plain and the transformed images of a batch that is on its device."""
    return batch.images, transformed_of(batch, 1)[0]


def two_views_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The two sets of transformed images of a batch that is on its device."""
    first, second = transformed_of(batch, 2)
    return first, second


def transformed_of(batch: Batch, number: int) -> list[Tensor]:
    """The first `number` sets of transformed images of a batch that is on its device.

    Raises:
        ArgumentError: it has fewer.
    """
    if len(batch.views) < number:
        raise ArgumentError(
            f"`batch` has {len(batch.views)} of the {number} sets of transformed images that are needed: say so in the "
            f"step's `wants`, or make it with `num_views={number}`."
        )
    return [view.made() for view in batch.views[:number]]


def view_cross_entropy(logits: Tensor, logits_view: Tensor, labels: Tensor, views: Views) -> Tensor:
    """Cross-entropy of the plain images, of the transformed ones (of the first images, where they are fewer), or the
    mean over all of both."""
    if views == "plain":
        return softmax_cross_entropy(logits, labels)
    labels_view = labels[: len(logits_view)]
    if views == "transformed":
        return softmax_cross_entropy(logits_view, labels_view)
    return softmax_cross_entropy(torch.cat([logits, logits_view]), torch.cat([labels, labels_view]))


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


def asks_as_they_are(explainer: Explainer) -> bool:
    """Whether an explainer asks the network about the images as they are, and at one layer: of copies that it changes
    (`augment`) nothing can be handed on that was found for the images."""
    return isinstance(explainer, ActivationExplainer) and explainer.augment is None and explainer.fuse is None


def explained_layer(explainer: Explainer, images: Tensor) -> nn.Module:
    """The layer that `explainer` looks at, found in normalised `images` where none was named.

    Raises:
        ArgumentError: it looks into what comes before, too.
    """
    if not isinstance(explainer, ActivationExplainer) or explainer.fuse is not None:
        raise ArgumentError(
            f"`training.compile` and `method.view_layer` are about what comes before the explained layer, and "
            f"`method.explainer` {explainer.name or type(explainer).__name__} looks into that: take grad_cam, or leave "
            "them out."
        )
    explainer(images)
    return explainer.model.get_submodule(str(explainer.layer))
