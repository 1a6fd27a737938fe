"""Asking the network again: scores of changed images or changed activations, in chunks, without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def outputs_of(model: nn.Module, batches: Iterable[Tensor], question: Question) -> Iterator[Tensor]:
    """`f(y)` `[n,K]` of the question's score for each batch of changed images `[n,C,H,W]`."""
    for images in batches:
        run = capture.forward(model, images, (), graph="none")
        yield question.outputs(run.logits)


def outputs_from(model: nn.Module, layer: nn.Module, images: Tensor, output: Tensor, question: Question) -> Tensor:
    """`f(y)` `[n,K]` for `images` `[n,C,H,W]` when `layer` gives `output` instead of what it computes."""
    return question.outputs(capture.forward_with(model, images, layer, output))
