"""Asking the network again: scores of changed images or changed activations, in chunks, without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain import capture
from contrex.explain.explainer import Explainer
from contrex.ops.scores import Question


class PerturbationExplainer(Explainer):
    """Methods that see how the scores change when parts of the input are changed: forward passes only.

    `batch_size` is the number of images in one of them; None chooses by device. The base of methods that explain the
    pixels; those at a layer inherit from `LayerExplainer` and use the functions of this module.
    """

    is_differentiable = False

    def __init__(self, model: nn.Module, *, batch_size: int | None = None) -> None:
        super().__init__(model)
        self._batch_size = checked_batch_size(batch_size)

    def _forward(self, images: Tensor, *, differentiable: bool) -> capture.Pass:
        return capture.forward(self.model, images, (), graph="none")


def checked_batch_size(batch_size: int | None) -> int | None:
    """`batch_size`, or `ArgumentError`."""
    if batch_size is not None and batch_size < 1:
        raise ArgumentError(f"`batch_size` must be at least 1 image, got {batch_size}.")
    return batch_size


def at_once(batch_size: int | None, device: torch.device) -> int:
    """Images in one forward pass: small ones are fastest on a CPU, large ones on a GPU."""
    return batch_size or (8 if device.type == "cpu" else 128)


_TAKES_CHANNELS_LAST: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether networks give for images in channels last what they give for them in channels first."""


def outputs_of(model: nn.Module, batches: Iterable[Tensor], question: Question) -> Iterator[Tensor]:
    """`f(y)` `[n,Z]` of the question's score for each batch of changed images `[n,C,H,W]`.

    Images go in channels last, which makes convolutions up to 1.4 times as fast on a CPU whatever the layout of the
    weights. A network that cannot have it (it calls `.view` on a feature map), or gives something else for its first
    batch (an in-place ReLU behind `nn.Flatten` writes to a copy there), gets them channels first.
    """
    for images in batches:
        yield question.outputs(_logits(model, images))


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    if _TAKES_CHANNELS_LAST.get(model) is False:
        return capture.forward(model, images.contiguous(), (), graph="none").logits
    try:
        last = images.contiguous(memory_format=torch.channels_last)
        logits = capture.forward(model, last, (), graph="none").logits
    except RuntimeError:
        logits = None
    if model in _TAKES_CHANNELS_LAST and logits is not None:
        return logits
    first = capture.forward(model, images.contiguous(), (), graph="none").logits
    _TAKES_CHANNELS_LAST[model] = logits is not None and not _differ(model, logits, first)
    return logits if logits is not None and _TAKES_CHANNELS_LAST[model] else first


def _differ(model: nn.Module, logits: Tensor, expected: Tensor) -> bool:
    """Whether fewer than half of the digits agree; NaN, which is refused later, is no difference."""
    return bool((logits - expected).abs().max() > capture.resolution(model, expected) ** 0.5 * expected.abs().max())
