"""Accuracy and loss of a classifier while it is trained, or its agreement with another network."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import nn

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
