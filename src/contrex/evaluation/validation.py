"""Accuracy and loss of a classifier while it is trained, or its agreement with another network."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contrex import ranks, settings
from contrex.data.sample import ImageSet
from contrex.data.views.evaluation import EvaluationViews
from contrex.data.views.squares import view_sizes
from contrex.errors import DataError
from contrex.evaluation.groups import GROUP, Groups
from contrex.losses import distillation_loss
from contrex.metrics import top_k_correct
from contrex.models import Classifier, eval_mode, model_logits
from contrex.ops import scores

SCALES = (0.5, 2.0)
"""Between these the best scale of logits is looked for."""


class Validation(NamedTuple):
    """Top-1 accuracy in % and the mean cross-entropy in nats, over all images; with a reference, the agreement with it
    and the divergence from it, and `kept`, how many of its `num_sure` sure decisions are the same, in %.

    Where the reference is sure of none, all count.
    """

    top1: float
    loss: float
    kept: float = 100.0
    num_sure: int = 0


def validation_groups(images: ImageSet, data: settings.Data, *, workers: int = 0) -> Groups:
    """The squares of `images` in groups, which `validate` may read again and again.

    Raises:
        DataError: there are no images.
    """
    if len(images) == 0:
        raise DataError(f"{images.name} has no images, so there is no accuracy: give it at least one.")
    views = EvaluationViews(images, view_sizes(data), whole_side=None, needs_whole=False, gallery=())
    return Groups(views, range(len(images)), workers=workers, size=4 * GROUP)


def validate(
    classifier: Classifier,
    groups: Groups,
    *,
    device: torch.device,
    reference: nn.Module | None = None,
    sure: float = 0.5,
) -> Validation:
    """Accuracy and cross-entropy on the squares, in eval mode. The network's mode is restored.

    With a `reference`, a network in eval mode, no labels are read: its predictions stand in for them, and in place of
    the cross-entropy is the divergence of the classifier's probabilities from its own, `mean KL(reference || network)`.
    Where its probability is at least `sure`, the prediction is one that should be kept.

    A sync point: all processes must call it.
    """
    network, correct, num_sure, kept = classifier.network, 0, 0, 0
    losses: list[float] = []
    with eval_mode(network), torch.inference_mode():
        for group in groups:
            images = classifier.normalise(torch.stack([views.square for views in group]).to(device))
            logits = model_logits(network, images).float()
            if reference is None:
                labels = torch.tensor([views.label for views in group], device=device)
                # Summed in float64, group by group, so that processes add up what one process would. `float` waits for
                # the device.
                losses.append(float(-scores.log_probability(logits.double(), labels).sum()))
            else:
                theirs = model_logits(reference, images).float()
                labels = theirs.argmax(1)
                losses.append(len(group) * float(distillation_loss(logits.double(), theirs.double())))
                is_sure = theirs.softmax(1).amax(1) >= sure
                num_sure += int(is_sure.sum())
                kept += int(top_k_correct(logits[is_sure], labels[is_sure], 1).sum()) if is_sure.any() else 0
            correct += int(top_k_correct(logits, labels, 1).sum())
    loss = sum(itertools.chain.from_iterable(ranks.gathered(losses)))  # in the order of the images, as one process adds
    top1 = 100 * sum(ranks.gathered(correct)) / groups.total
    if reference is None:
        return Validation(top1, loss / groups.total)
    num_sure, kept = sum(ranks.gathered(num_sure)), sum(ranks.gathered(kept))
    return Validation(top1, loss / groups.total, 100 * kept / num_sure if num_sure else top1, num_sure)


def best_scale(classifier: Classifier, groups: Groups, *, device: torch.device, reference: nn.Module) -> float:
    """The number that brings probabilities nearest to those of another network when all logits are multiplied by it.

        s = argmin mean KL( softmax(t) || softmax(s y) )

    for the logits y [K] of the classifier and t [K] of the `reference`, a network in eval mode, on each square; s is
    from 0.5 to 2. It is temperature scaling (Guo et al., ICML 2017, section 4.2) with the reference's probabilities in
    the place of labels. No decision changes. The divergence is convex in s: its slope, mean sum_k (softmax(s y) -
    softmax(t))_k y_k, only rises. Where it is flat, as for a single logit, s is 1.

    A sync point: the slopes of all processes are added up, so all must call it, and find the same number.
    """
    network = classifier.network
    pairs: list[tuple[Tensor, Tensor]] = []
    with eval_mode(network), torch.inference_mode():
        for group in groups:
            images = classifier.normalise(torch.stack([views.square for views in group]).to(device))
            own, theirs = (model_logits(one, images).double().cpu() for one in (network, reference))
            pairs.append((own, theirs.softmax(1)))

    def slope(scale: float) -> float:
        slopes = [float((((scale * own).softmax(1) - theirs) * own).sum()) for own, theirs in pairs]
        return sum(itertools.chain.from_iterable(ranks.gathered(slopes)))  # the same in all processes

    if slope(1.0) == 0:
        return 1.0
    low, high = SCALES
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2
