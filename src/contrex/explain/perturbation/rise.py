"""RISE (Petsiuk et al., BMVC 2018)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain.forward.capture import Pass
from contrex.explain.options import About
from contrex.explain.perturbation.explainer import PerturbationExplainer, at_once, check_alone, outputs_of
from contrex.models.classifier import Classifier
from contrex.ops.heatmap import resize
from contrex.ops.scores import Question, weighed


class RISE(PerturbationExplainer):
    """`1 / (E[M] n) sum_i S(x * M_i) M_i`: the mean of random masks, weighted by the score they leave (equation 6).

    A mask is a grid of `cells` x `cells`, each kept with probability `keep`, upsampled bilinearly to one cell more than
    the image and cut out at a random place within that cell (section 3.2); so `E[M] = keep` at every pixel. Masks are
    drawn from `seed`, alike for every image and every call, and made a few at a time. Signals have one row of `cells`,
    volumes `cells` cubed.

    Deviations: the score is the logit unless `score="probability"`, which the paper uses, is asked for; 1000 masks, not
    4000 (VGG-16) or 8000 (ResNet-50): the noise of the map falls with the root of their number.
    """

    name = "rise"
    unit = "mean {score}"

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        num_masks: int = 1000,
        cells: int = 7,
        keep: float = 0.5,
        seed: int = 0,
        batch_size: int | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, batch_size=batch_size, **about)
        if min(num_masks, cells) < 1:
            name, value = ("num_masks", num_masks) if num_masks < 1 else ("cells", cells)
            raise ArgumentError(f"`{name}` must be at least 1, got {value}.")
        if not 0 < keep < 1:
            raise ArgumentError(f"`keep` must be a probability between 0 and 1, got {keep}: 0.5 is the paper's.")
        self._num_masks, self._cells, self._keep, self._seed = num_masks, cells, keep, seed

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        check_alone(self.model, run)
        sides = tuple(run.images.shape[2:])
        num = at_once(self._batch_size, run.images.device)
        grids, corners = self._draws(*sides)
        heatmap = torch.zeros((), device=run.images.device)
        for start in range(0, self._num_masks, num):
            masks = _masks(grids[start : start + num], corners[start : start + num], *sides).to(run.images)
            masked = ((n, image * masks[:, None]) for n, image in enumerate(run.images.detach()))
            outputs = outputs_of(self.model, masked, question)
            left = torch.stack(list(outputs))  # [N,n,Z]
            with torch.autocast(left.device.type, enabled=False):
                weights = weighed(question.rows, left)
                heatmap = heatmap + torch.einsum("nmb,b...->nm...", weights, masks.to(weights))
        # E[M] is known, so it is not estimated from the masks drawn: the estimate stays unbiased.
        return heatmap / (self._num_masks * self._keep)

    def _draws(self, *sides: int) -> tuple[Tensor, Tensor]:
        """The grids `[n,cells,cells]` of 0 and 1 and the corners `[n,2]` at which their upsampled forms are cut."""
        # On the CPU: every device gets the same masks, and the caller's random state is not used up.
        generator = torch.Generator("cpu").manual_seed(self._seed)
        shape = (
            self._num_masks,
            *[self._cells] * len(sides),
        )  # the device and type are not left to the caller's defaults
        grids = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < self._keep
        corners = [
            torch.randint(_cell(length, self._cells), (self._num_masks,), generator=generator, device="cpu")
            for length in sides
        ]
        return grids.to(torch.float32), torch.stack(corners, 1)


def _masks(grids: Tensor, corners: Tensor, *sides: int) -> Tensor:
    """The masks `[n,H,W]` that grids, enlarged and cut out at their corners, are."""
    cells = grids.shape[1]
    large = resize(grids, tuple((cells + 1) * _cell(length, cells) for length in sides))
    cut = [
        mask[tuple(slice(start, start + length) for start, length in zip(corner, sides, strict=True))]
        for mask, corner in zip(large, corners.tolist(), strict=True)
    ]
    return torch.stack(cut)


def _cell(length: int, cells: int) -> int:
    """The number of pixels in one of `cells` cells that cover `length` pixels."""
    return -(-length // cells)
