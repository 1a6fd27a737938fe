"""Distillation: a network learns the probabilities of another one (Hinton, Vinyals and Dean 2015, section 2).

    L = T^2 * mean_n KL( softmax(t_n / T) || softmax(y_n / T) )

for the logits y of the network and t of its teacher. The factor T^2 keeps the gradient's size the same at any T.

Deviations: the paper's loss is the cross-entropy with the teacher's probabilities, which differs from the divergence by
the teacher's entropy, a constant; the divergence is 0 where both agree.

Legend: N images, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError


def distillation_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The divergence of a network's probabilities from its teacher's, in nats, a mean over the images.

    Args:
        logits: `[N,K]` of the network that learns, K >= 2.
        teacher_logits: `[N,K]` of its teacher, which get no gradient.
        temperature: T.

    Raises:
        ArgumentError: shapes do not match, there is one logit, or `temperature` is not positive.

    >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
    >>> bool(distillation_loss(logits, logits).abs() < 1e-6)
    True
    """
    if not temperature > 0:
        raise ArgumentError(f"`temperature` must be positive, got {temperature}.")
    if logits.ndim != 2 or logits.shape != teacher_logits.shape or len(logits) == 0:
        raise ArgumentError(
            "`logits` and `teacher_logits` must have one shape [N,K] with N >= 1, "
            f"got {list(logits.shape)} and {list(teacher_logits.shape)}."
        )
    if logits.shape[1] < 2:
        raise ArgumentError(
            "distillation compares the probabilities of a softmax, and its loss is 0 for a network of one logit: give "
            "it two."
        )
    own, theirs = (
        F.log_softmax(y.to(torch.promote_types(y.dtype, torch.float32)) / temperature, dim=1)
        for y in (logits, teacher_logits.detach())
    )
    # Both as logarithms: a probability that underflows to 0 would have none.
    return temperature**2 * F.kl_div(own, theirs, reduction="batchmean", log_target=True)
