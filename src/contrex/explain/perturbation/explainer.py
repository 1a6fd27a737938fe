"""Asking the network again: scores of changed images or changed activations, in chunks, without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from contrex.devices import images_at_once
from contrex.errors import ArgumentError
from contrex.explain.explainer import Explainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About
from contrex.models.beside import Rows, about
from contrex.models.classifier import Classifier
from contrex.ops.likeness import differ
from contrex.ops.scores import Question


class PerturbationExplainer(Explainer):
    """Methods that see how the scores change when parts of the input are changed: forward passes only.

    `batch_size` is the number of images in one of them; None chooses by device. The base of methods that explain the
    pixels; those at a layer inherit from `LayerExplainer` and use the functions of this module.
    """

    is_differentiable = False
    ranks = (1, 2, 3)

    def __init__(self, model: nn.Module | Classifier, *, batch_size: int | None = None, **about: Unpack[About]) -> None:
        super().__init__(model, **about)
        self._batch_size = checked_batch_size(batch_size)

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        return capture.forward(self.model, images, (), graph="none")


def checked_batch_size(batch_size: int | None) -> int | None:
    """The number of images in one pass, if it is one; otherwise `ArgumentError`."""
    if batch_size is not None and batch_size < 1:
        raise ArgumentError(f"`batch_size` must be at least 1 image, got {batch_size}.")
    return batch_size


def at_once(batch_size: int | None, device: torch.device) -> int:
    """Images in one forward pass: small ones are fastest on a CPU, large ones on a GPU."""
    return images_at_once(device, batch_size)


def check_alone(model: nn.Module, run: Pass) -> None:
    """Refuse a network that does not answer for each image by itself: changed copies go through it in batches of other
    sizes than the call's, where what it keeps for each place of the batch (metadata, a state) is another image's.

    Two copies of the first image must give the same logits: not those that it has beside the others, which the scale of
    dynamic quantisation or a batch norm without statistics may move. Networks that draw random numbers pass.

    Raises:
        ArgumentError: it fails, or answers by the place in the batch.
    """
    try:
        with about(0):
            logits = capture.forward(
                model, run.images[:1].detach().repeat(2, *[1] * (run.images.ndim - 1)), (), graph="none"
            ).logits
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise other_sizes(model, len(run.images), 2, error) from error
    if _alike(logits[:1], logits[1:]):
        return
    # The call's own images once more: a network that draws random numbers answers otherwise each time, and passes.
    if _alike(capture.forward(model, run.images.detach(), (), graph="none").logits, run.logits):
        raise other_sizes(model, len(run.images), 2, "their logits differ")


def other_sizes(model: nn.Module, num_images: int, num_copies: int, reason: object) -> ArgumentError:
    """The error for a network that takes the images of a call, and not another number of changed copies of them."""
    said = str(reason).partition("\n")[0] or type(reason).__name__
    return ArgumentError(
        f"`model` {type(model).__name__} took the {num_images} image(s) of the call, but not {num_copies} copies of "
        f"one ({said}): this method asks about changed images in batches of other sizes. Let the forward depend on "
        "nothing but its images (no metadata of the whole batch), or use a method of one pass, as GradCAM."
    )


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal but for the rounding of another batch."""
    tolerance = 1e-3 if not torch.is_autocast_enabled(found.device.type) else 5e-2
    return not bool(differ(found.flatten(), expected.flatten(), tolerance))


_TAKES_CHANNELS_LAST: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether networks give for images in channels last what they give for them in channels first."""


def outputs_of(model: nn.Module, batches: Iterable[tuple[Rows, Tensor]], question: Question) -> Iterator[Tensor]:
    """`f(y)` `[n,Z]` of the question's score for each batch of changed images `[n,C,H,W]`, beside which images they are
    changed from.

    Images go in channels last, which makes convolutions up to 1.4 times as fast on a CPU whatever the layout of the
    weights. A network that cannot have it (it calls `.view` on a feature map), or gives something else for its first
    batch (an in-place ReLU behind `nn.Flatten` writes to a copy there), gets them channels first.
    """
    for rows, images in batches:
        with about(rows):
            logits = _logits(model, images)
        yield question.outputs(logits)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    if _TAKES_CHANNELS_LAST.get(model) is False or images.ndim != 4:  # torch has channels last of pictures alone
        return capture.forward(model, images.contiguous(), (), graph="none").logits
    try:
        last = images.contiguous(memory_format=torch.channels_last)
        logits = capture.forward(model, last, (), graph="none").logits
    except RuntimeError:
        logits = None
    # The first batch of a network went through it in both layouts and agreed.
    if model in _TAKES_CHANNELS_LAST and logits is not None:
        return logits
    first = capture.forward(model, images.contiguous(), (), graph="none").logits
    _TAKES_CHANNELS_LAST[model] = logits is not None and not _differ(model, logits, first)
    return logits if logits is not None and _TAKES_CHANNELS_LAST[model] else first


def _differ(model: nn.Module, logits: Tensor, expected: Tensor) -> bool:
    """Whether fewer than half of the digits agree."""
    return bool(differ(logits.flatten(), expected.flatten(), capture.resolution(model, expected) ** 0.5))
