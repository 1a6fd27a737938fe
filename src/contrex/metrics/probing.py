"""What metrics that ask a model about changed images have in common.

Axes: N images, C channels, H W pixels, K logits. `task` says what the logits are, as in `contrex.ops.scores`: None is
a sigmoid, hence the classes 0 and 1, for one logit, and a softmax for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.models import model_logits
from contrex.ops import scores


def at_once(images: Tensor, batch_size: int | None) -> int:
    """The most images in one forward pass: `batch_size`, or 8 on a CPU and 128 elsewhere.

    Raises:
        ArgumentError: `images` is not `[N,C,H,W]` with N >= 1, or `batch_size` is below 1.
    """
    if images.ndim != 4 or not len(images):
        raise ArgumentError(f"`images` must be [N,C,H,W] with N >= 1, got {list(images.shape)}.")
    if batch_size is None:
        return 8 if images.device.type == "cpu" else 128
    if batch_size < 1:
        raise ArgumentError(f"`batch_size` must be at least 1 image, got {batch_size}.")
    return batch_size


def check_saliency(images: Tensor, saliency: Tensor) -> None:
    """Raises `ArgumentError` unless `saliency` is `[N,H,W]` at the size of `images` and free of NaN."""
    expected = (images.shape[0], *images.shape[2:])
    if saliency.shape != expected:
        raise ArgumentError(
            f"`saliency` must be [N,H,W] = {list(expected)}, got {list(saliency.shape)}: resize the heatmaps first."
        )
    if saliency.isnan().any():
        index = int(saliency.isnan().flatten(1).any(dim=1).nonzero()[0])
        raise ArgumentError(f"`saliency` must not be NaN, got NaN at index {index}.")


def whole_logits(model: nn.Module, images: Tensor, logits: Tensor | None, num_images: int) -> Tensor:
    """The logits [N,K] of the images as they are: `logits`, or the model's, at most `num_images` in a pass.

    Raises:
        ArgumentError: `logits` are not `[N,K]`.
    """
    if logits is None:
        logits = torch.cat([model_logits(model, some.clone()) for some in torch.split(images, num_images)])
    if logits.ndim != 2 or len(logits) != len(images):
        raise ArgumentError(f"`logits` must be [N,K] with N = {len(images)}, got {list(logits.shape)}.")
    return logits.detach().to(images.device)


def chosen_target(target: Tensor | None, logits: Tensor, task: str | None = None) -> Tensor:
    """The class of each image, integers [N]: `target`, or the class with the largest probability.

    Raises:
        ArgumentError: `target` is not integers `[N]` among the classes, or `task` does not fit the logits.
    """
    num_classes = scores.class_logits(logits, task).shape[1]
    if target is None:
        return scores.predicted(logits, task)
    if target.shape != logits.shape[:1] or target.is_floating_point():
        raise ArgumentError(
            f"`target` must be integers [{len(logits)}], one class per image, got {target.dtype} {list(target.shape)}."
        )
    if ((target < 0) | (target >= num_classes)).any():
        raise ArgumentError(f"`target` must lie in 0..{num_classes - 1}, got {target.tolist()}.")
    return target.to(logits.device)


def class_probability(logits: Tensor, target: Tensor, task: str | None = None) -> Tensor:
    """`p_target` of the softmax, or of a sigmoid where `task` says so, [N], float32 or better.

    >>> class_probability(torch.tensor([[0.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 1.0000])
    """
    return scores.probability(logits.to(torch.promote_types(logits.dtype, torch.float32)), target, task)


def in_chunks(function: Callable[..., Tensor], *columns: Tensor, num_images: int) -> Tensor:
    """`function(*columns)` for at most `num_images` images at a time, joined along the first axis.

    >>> in_chunks(torch.add, torch.arange(5), torch.arange(5), num_images=2)
    tensor([0, 2, 4, 6, 8])
    """
    parts: Iterable[tuple[Tensor, ...]] = zip(*(torch.split(column, num_images) for column in columns), strict=True)
    return torch.cat([function(*part) for part in parts])
