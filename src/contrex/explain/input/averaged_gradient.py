"""Averaging the gradient over changed copies of an image, a few copies at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.devices import images_at_once
from contrex.errors import LayerError
from contrex.explain.explainer import InputExplainer, pixel_gradients
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.input.baseline import Baseline, BaselinePass, beside_baseline
from contrex.explain.options import About
from contrex.explain.perturbation.explainer import checked_batch_size, other_sizes
from contrex.models.beside import about
from contrex.models.classifier import Classifier
from contrex.ops.scores import Question


class AveragedGradient(InputExplainer):
    """Methods that combine the pixels with a weighted mean of the gradients at changed copies of the image.

    Pixels are told as their distance from a baseline, which is 0 where a method has none.

    The same question - class weights fixed on the explained image - is asked at every copy. `batch_size` is the number
    of copies in one forward and backward pass, which bounds the memory; None chooses by device. With
    `differentiable=True` the graphs of all copies are kept.
    """

    _baseline: Baseline = 0.0

    def __init__(self, model: nn.Module | Classifier, *, batch_size: int | None = None, **about: Unpack[About]) -> None:
        super().__init__(model, **about)
        self._batch_size = checked_batch_size(batch_size)

    @abstractmethod
    def copies(self, images: Tensor, baseline: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Weight and copy `[N,C,H,W]`, one after another; each image's copies must not depend on the others'."""

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        run = capture.forward(self.model, images, (), graph="all" if differentiable else "none")
        return beside_baseline(run, self._baseline)

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, BaselinePass)
        size = images_at_once(run.images.device, self._batch_size)
        maps = []
        for start in range(0, len(run.images), size):
            some = slice(start, start + size)
            asked = replace(question, rows=question.rows[some])
            maps.append(self._part(some, asked, size, run, differentiable))
        return torch.cat(maps)

    def _run(self, points: Tensor, num_images: int, *, differentiable: bool) -> Pass:
        """Run some copies of the images in one pass; the call was about `num_images`."""
        try:
            return capture.forward(self.model, points, (), graph="all" if differentiable else "head")
        except (torch.OutOfMemoryError, LayerError):
            raise
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if len(points) == num_images:
                raise
            raise other_sizes(self.model, num_images, len(points), error) from error

    def _part(self, some: slice, question: Question, size: int, whole: BaselinePass, differentiable: bool) -> Tensor:
        """The maps `[n,M,H,W]` of so few images that one copy of each fits into a pass."""
        images, baseline, places = whole.images[some], whole.baseline[some], range(len(whole.images))[some]
        copies, means = self.copies(images, baseline), [torch.zeros((), device=images.device)] * question.rows.shape[1]
        # As many copies of all these images as fit into one pass; the weighted sum is kept, not the gradients of the
        # copies.
        while chunk := list(islice(copies, size // len(images))):
            num = len(chunk)
            points = torch.cat([copy for _, copy in chunk])
            weights = question.rows.new_tensor([weight for weight, _ in chunk])
            repeated = replace(question, rows=question.rows.repeat(num, 1, 1))
            with about([*places] * num):
                run = self._run(points, len(whole.images), differentiable=differentiable)
            gradients = pixel_gradients(run, repeated, differentiable=differentiable)
            with torch.autocast(images.device.type, enabled=False):
                for index, gradient in enumerate(gradients):
                    total = torch.einsum("s,s...->...", weights, gradient.view(num, *images.shape))
                    means[index] = means[index] + total
        with torch.set_grad_enabled(differentiable):
            return torch.stack([self.combine(images - baseline, mean) for mean in means], 1)
