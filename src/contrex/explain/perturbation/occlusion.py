"""Occlusion (Zeiler and Fergus, ECCV 2014)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain.forward.capture import Pass
from contrex.explain.input.baseline import Baseline, BaselinePass, beside_baseline
from contrex.explain.options import About
from contrex.explain.perturbation.explainer import PerturbationExplainer, at_once, check_alone, outputs_of
from contrex.models.classifier import Classifier
from contrex.ops.scores import Question, weighed

Sides = None | int | tuple[int] | tuple[int, int, int] | tuple[int, int]
_AXES = "def", "hwl"
"""Letters of the windows and of the pixels along each axis."""


class Occlusion(PerturbationExplainer):
    """`mean_{windows over the pixel} S(x) - S(x with the window replaced)`: what the score loses (section 4.2).

    `window` and `stride` are pixels, one number or (height, width), of signals (length,), of volumes three; None takes
    a seventh of each side, and half the window. The windows start at the top left; a last one is flush with the border,
    so all have one size and every pixel is covered. `baseline` - a number, `[C]`, `[C,H,W]`, or a function from images
    to images - fills them; 0 is the mean colour of the data set for normalised images (the paper's grey).

    Deviation: the paper shows the score left behind each window, here its loss is given back to the pixels.
    """

    name = "occlusion"
    unit = "fall of the {score}"

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        window: Sides = None,
        stride: Sides = None,
        baseline: Baseline = 0.0,
        batch_size: int | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, batch_size=batch_size, **about)
        self._window, self._stride, self._baseline = _sides(window, "window"), _sides(stride, "stride"), baseline

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        return beside_baseline(super()._forward(images, differentiable=differentiable), self._baseline)

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, BaselinePass)
        covers = self._windows(run.images)
        check_alone(self.model, run)
        places = [torch.arange(len(axis), device=axis.device) for axis in covers]
        chosen = torch.cartesian_prod(*places).reshape(-1, len(covers))
        chunks = torch.split(chosen, at_once(self._batch_size, run.images.device))
        whole, losses = question.outputs(run.logits), []
        for n, (image, filling, output, weights) in enumerate(
            zip(run.images.detach(), run.baseline, whole, question.rows, strict=True)
        ):
            occluded = ((n, part) for part in _occluded(image, filling, covers, chunks))
            left = outputs_of(self.model, occluded, question)
            with torch.autocast(image.device.type, enabled=False):
                losses.append(weighed(weights, output - torch.cat(list(left))))
        with torch.autocast(run.images.device.type, enabled=False):
            axes = [axis.to(whole) for axis in covers]
            loss = torch.stack(losses).reshape(len(whole), -1, *map(len, covers))
            # Windows are products of a range of rows and one of columns, so the mean over those that cover a pixel is
            # one along each axis.
            windows, pixels = (letters[: len(axes)] for letters in _AXES)
            along = ",".join(map("".join, zip(windows, pixels, strict=True)))
            return torch.einsum(f"nm{windows},{along}->nm{pixels}", loss, *[axis / axis.sum(0) for axis in axes])

    def _windows(self, images: Tensor) -> list[Tensor]:
        """Which pixels of each axis its windows cover: `[rows,H]` and `[columns,W]`, boolean."""
        sides = images.shape[2:]
        windows = _of_sides(self._window, sides, "window") or tuple(-(-side // 7) for side in sides)
        strides = _of_sides(self._stride, sides, "stride") or tuple(max(1, window // 2) for window in windows)
        covers = []
        for side, window, stride in zip(sides, windows, strides, strict=True):
            if window > side:
                raise ArgumentError(f"`window` must fit into the image, got {window} for a side of {side} pixels.")
            if stride > window:
                raise ArgumentError(
                    f"`stride` must be at most the window's {window} pixels, or pixels are left out; got {stride}."
                )
            starts = torch.tensor([*range(0, side - window, stride), side - window], device=images.device)[:, None]
            pixels = torch.arange(side, device=images.device)
            covers.append((starts <= pixels) & (pixels < starts + window))
        return covers


def _occluded(image: Tensor, filling: Tensor, covers: Sequence[Tensor], chunks: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Copies `[n,C,H,W]` of an image with one window replaced in each."""
    for chunk in chunks:
        windows = torch.ones((), dtype=torch.bool, device=image.device)
        for index, axis in enumerate(covers):
            windows = windows[..., None] & axis[chunk[:, index]].view(len(chunk), *[1] * index, -1)
        yield torch.where(windows[:, None], filling, image)


def _sides(value: Sides, name: str) -> Sides:
    """A number of pixels, or some, or `ArgumentError`."""
    sides = [value] if isinstance(value, int) else value
    if sides is not None and (len(sides) > 3 or not sides or min(sides) < 1):
        raise ArgumentError(f"`{name}` must be at least 1 pixel, or (height, width); got {value}.")
    return value


def _of_sides(value: Sides, sides: Sequence[int], name: str) -> tuple[int, ...] | None:
    """One number of pixels for each side of the images."""
    many = (value,) * len(sides) if isinstance(value, int) else value
    if many is not None and len(many) != len(sides):
        raise ArgumentError(f"`{name}` must be at least 1 pixel, or one for each side, {len(sides)}; got {value}.")
    return many
