"""Which embeddings of a batch are positive for which, and which stand in whose denominator.

A contrastive batch has V views of each of n images, and then V views of each of B background images, which are only
contrasted with. Rows are sample-major: view v of image i is row `i V + v`, as in `features.flatten(0, 1)` of
`[n + B,V,D]`, so background rows come last. They are no anchors: a mask has one row per anchor, A = n V, and one
column per embedding, M = (n + B) V.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError


def positive_pairs(labels: Tensor, num_views: int, *, num_background: int = 0) -> Tensor:
    """The positives `P(i)` of each anchor, boolean `[A,M]`: the other views of its image, and all views of its class.

    Args:
        labels: integers `[n]`; equal labels are one class. `torch.arange(n)` makes each image its own class.
        num_views: V.
        num_background: B, the background images that follow the n.

    Raises:
        ArgumentError: `labels` are not integers `[n]`, `num_views` is below 1 or `num_background` is negative.

    >>> positive_pairs(torch.tensor([5, 3, 5]), 1, num_background=1).int()
    tensor([[0, 0, 1, 0],
            [0, 0, 0, 0],
            [1, 0, 0, 0]], dtype=torch.int32)
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise ArgumentError(f"`labels` must be integers [n], got {labels.dtype} {list(labels.shape)}.")
    _check_counts(num_views, num_background)
    classes = labels.repeat_interleave(num_views)
    same = F.pad(classes[:, None] == classes, (0, num_background * num_views))
    return same & contrasted_pairs(len(labels), num_views, num_background=num_background, device=labels.device)


def contrasted_pairs(
    num_images: int, num_views: int, *, num_background: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """What stands in the denominator of each anchor, boolean `[A,M]`: every embedding but itself.

    Raises:
        ArgumentError: `num_views` is below 1 or `num_background` is negative.

    >>> contrasted_pairs(1, 2, num_background=1).int()
    tensor([[0, 1, 1, 1],
            [1, 0, 1, 1]], dtype=torch.int32)
    """
    _check_counts(num_views, num_background)
    num_anchors = num_images * num_views
    # Background has columns and no rows: it is contrasted with, and is nobody's anchor.
    return ~torch.eye(num_anchors, num_anchors + num_background * num_views, dtype=torch.bool, device=device)


def _check_counts(num_views: int, num_background: int) -> None:
    if num_views < 1:
        raise ArgumentError(f"`num_views` must be at least 1, got {num_views}.")
    if num_background < 0:
        raise ArgumentError(f"`num_background` must be at least 0, got {num_background}.")
