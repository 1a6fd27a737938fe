"""How often the label is among the classes a network puts first.

Axes: N images, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_no_nan
from contrex.ops import scores


def top_k_correct(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the `k` classes with the largest logits.

    `correct_n = #{s : y_s > y_t, or y_s = y_t and s < t} < k` for the label `t`: of equal logits the lower class
    index comes first, as in `argmax`. So the answer is the same on every device, `k = 1` is `argmax == label`, and
    a network that answers the same for all classes scores chance, not 100 %.

    Args:
        logits: `[N,K]`, or probabilities, which order the classes alike. One logit y `[N,1]` is a sigmoid with the
            classes 0 and 1, of which 1 comes first where y > 0: pass the logit, not its probability.
        labels: integers `[N]` in `0..K-1`; of one logit 0 or 1.
        k: `1..K`; of one logit 1 or 2.

    Returns:
        Boolean `[N]` on the device of `logits`.

    Raises:
        ArgumentError: a shape, a label or `k` does not fit, or a logit is NaN.

    >>> top_k_correct(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]]), torch.tensor([2, 1]), k=1)
    tensor([False, False])
    """
    logits = scores.class_logits(logits) if logits.ndim == 2 else logits
    _check(logits, labels, k)
    labels = labels.to(logits.device)[:, None]
    label_logit = logits.gather(1, labels)
    classes = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > label_logit) | ((logits == label_logit) & (classes < labels))
    return ahead.sum(dim=1) < k


class TopKAccuracy(PerSampleMetric):
    """Share of images whose label is among the `k` first classes, in %: `top_k_correct`, named `top<k>`.

    >>> top1 = TopKAccuracy(k=1)
    >>> top1.update(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    >>> top1.compute()
    tensor(75., dtype=torch.float64)
    """

    unit = "%"
    higher_is_better = True

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ArgumentError(f"`k` must be at least 1, got {k}.")
        self.k, self.name, self.title = k, f"top{k}", f"Top-{k} accuracy"
        super().__init__()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: `logits [N,K]`, `labels [N]`."""
        self.append(100.0 * top_k_correct(logits, labels, self.k).double())


def _check(logits: Tensor, labels: Tensor, k: int) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ArgumentError(
            f"`logits` must be [N,K] and `labels` [N], got {list(logits.shape)} and {list(labels.shape)}."
        )
    num_classes = logits.shape[1]
    if not 1 <= k <= num_classes:
        raise ArgumentError(f"`k` must lie in 1..{num_classes}, the number of classes, got {k}.")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ArgumentError(f"`labels` must be integers, got {labels.dtype}.")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        index = int(outside.nonzero()[0])
        raise ArgumentError(
            f"`labels` must lie in 0..{num_classes - 1}, got {int(labels[index])} at index {index}: "
            "leave images without a known label out."
        )
    check_no_nan("logits", logits)
