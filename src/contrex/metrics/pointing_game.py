"""Pointing games: does a heatmap point at the object, with its maximum or with points drawn from it.

The energy-based pointing game (Score-CAM, 2020) is the share of the heatmap inside the boxes: `content_heatmap`.

Axes: N images, h w the heatmap at layer size, H W one image's own size, M boxes of one image, P points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from contrex.errors import ArgumentError
from contrex.metrics.localisation import (
    LocalisationMetric,
    Region,
    check_maps_and_regions,
    has_object,
    object_mask,
    resized_positive,
)
from contrex.metrics.probing import check_seeds


def pointing_game(
    heatmaps: Tensor,
    boxes: Sequence[Region],
    image_sizes: Sequence[tuple[int, int]],
    *,
    tolerance: float = 15.0,
) -> Tensor:
    """Whether the maximum of each heatmap lies on the object of its image or near it: 100 or 0.

    `hit_n = 100` if a pixel of the object is less than `tolerance` pixels away from `argmax u_n`, or is that pixel;
    `u_n` the bilinear resize (`align_corners=False`) of `relu(heatmap_n)` to the image's own size.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop" (ECCV 2016), with TorchRay's reading of its 15
    pixels: less than 15 away, which GCC (Pillai and Pirsiavash, AAAI 2021) took over. *Deviations*: `tolerance=0` asks
    for a point on the object (TorchRay's comparison is false for every point then), and an empty map is skipped where
    TorchRay points at pixel (0, 0). The mean is over images, in TorchRay over the means of the classes.

    Of equal maxima the first counts, row by row; values equal to 1e-9 are equal, so that rounding does not choose. A
    maximum in a border cell of the map is constant from there to the border after the resize, so its point is the
    upper left end of that plateau.

    Args:
        heatmaps: raw signed maps `[N,h,w]` of whole images, at layer size.
        boxes: for each image boxes `[M,4]` or a mask, as `content_heatmap` takes them: those of the explained class.
        image_sizes: `(H, W)` of each image.
        tolerance: in pixels of the image, at least 0; 15 in the papers, whatever the size of the image.

    Returns:
        float64 `[N]` on the heatmaps' device, 0 or 100; NaN where the map has no positive value and where there is
        no box (or the mask is all False).

    Raises:
        ArgumentError: as `content_heatmap`, or `tolerance` is negative.

    >>> heatmap = torch.tensor([[[0.0, 0.0, 1.0]]])  # the maximum is at column 25 of 30
    >>> [pointing_game(heatmap, [[[0, 0, 12, 9]]], [(9, 30)], tolerance=t).item() for t in (0, 15)]
    [0.0, 100.0]
    """

    def first_maximum(resized: Tensor, index: int) -> Tensor:
        flat = resized.flatten()
        # The first that is the maximum up to rounding: rounding alone would choose among equal cells.
        return (flat >= flat.max() * (1 - 1e-9)).int().argmax(keepdim=True)

    return _hits(heatmaps, boxes, image_sizes, tolerance, first_maximum)


def stochastic_pointing_game(
    heatmaps: Tensor,
    boxes: Sequence[Region],
    image_sizes: Sequence[tuple[int, int]],
    *,
    seeds: Sequence[int],
    num_samples: int = 100,
    tolerance: float = 15.0,
) -> Tensor:
    """Share in % of points drawn from each heatmap that lie on the object of its image or near it.

    `num_samples` pixels are drawn with replacement, with probability `u_n / sum u_n`; hits and u as in `pointing_game`.

    GCC (Pillai and Pirsiavash, AAAI 2021), as in its published code: 100 samples, tolerance 15. *Deviations*: the code
    adds 1e-8 to each cell of the normalised map, so that it draws from all over an empty one, which is skipped here.
    The expected value is the share of the heatmap less than `tolerance` away from the object; with `tolerance=0` that
    is `content_heatmap`, which has no noise.

    The numbers come from a generator per image on the CPU, so they are the same on every device and in every batch.

    Args:
        heatmaps, boxes, image_sizes, tolerance: as `pointing_game`.
        seeds: an integer per image; different ones, or the images' errors add up instead of cancelling.
        num_samples: points per image.

    Returns:
        float64 `[N]` on the heatmaps' device, in 0..100; NaN as in `pointing_game`.

    Raises:
        ArgumentError: as `pointing_game`, or there are not N seeds or no samples.

    >>> left_half = torch.tensor([[0.0, 0.0, 50.0, 100.0]])
    >>> stochastic_pointing_game(torch.ones(1, 7, 7), [left_half], [(100, 100)], seeds=[0], tolerance=0)
    tensor([45.], dtype=torch.float64)
    """
    check_seeds(seeds, len(heatmaps))
    if num_samples < 1:
        raise ArgumentError(f"`num_samples` must be at least 1 point, got {num_samples}: 100 is usual.")

    def drawn(resized: Tensor, index: int) -> Tensor:
        # On the CPU and one for each image, so that a value is the same on every device and in every batch.
        source = torch.Generator("cpu").manual_seed(int(seeds[index]))
        shares = torch.rand(num_samples, generator=source, dtype=torch.float64, device="cpu").to(resized.device)
        total = resized.flatten().cumsum(0)
        # The inverse of the cumulative sum; `right`, so that a pixel of 0 is never drawn, and clamped, as a share just
        # below 1 may round to the end.
        return torch.searchsorted(total, shares * total[-1], right=True).clamp(max=len(total) - 1)

    return _hits(heatmaps, boxes, image_sizes, tolerance, drawn)


def near_object(mask: Tensor, rows: Tensor, columns: Tensor, tolerance: float) -> Tensor:
    """Which of the points `[P]` are on the object, or less than `tolerance` away from a pixel of it; boolean `[P]`.

    Distances are between pixel centres.

    Args:
        mask: boolean `[H,W]`, True on the object.
        rows: `[P]` in 0..H-1.
        columns: `[P]` in 0..W-1.
        tolerance: in pixels, at least 0.

    >>> mask = torch.tensor([[True, False, False, False]])
    >>> near_object(mask, torch.zeros(4).long(), torch.arange(4), tolerance=2)
    tensor([ True,  True, False, False])
    """
    # The disc around a point, row by row: whether the object has pixels among those of the row that lie in it.
    reach = max(math.ceil(tolerance) - 1, 0)
    down = torch.arange(-reach, reach + 1, device=mask.device)
    half = ((tolerance**2 - down.double() ** 2).clamp(min=0).sqrt().ceil().long() - 1).clamp(min=0)
    left = (columns[:, None] - half).clamp(min=0)
    right = (columns[:, None] + half + 1).clamp(max=mask.shape[1])
    row = (rows[:, None] + down).clamp(0, mask.shape[0] - 1)  # a row repeated at the border adds nothing to itself
    # Counts up to each column: the object has pixels between left and right where the counts there differ.
    before = pad(mask.long().cumsum(1), (1, 0))
    return (before[row, right] > before[row, left]).any(dim=1)


class PointingGame(LocalisationMetric):
    """Share of hits in %: `pointing_game`, with separate counts of the two kinds of skipped images.

    Named `pointing_game_<tolerance>`.

    >>> metric = PointingGame()
    >>> metric.update(torch.eye(3).expand(2, 3, 3), [[[0, 0, 9, 9]], []], [(90, 90)] * 2)
    >>> metric.name, metric.compute().item(), metric.describe_skipped()
    ('pointing_game_15', 100.0, '1 without a box of the class')
    """

    def __init__(self, *, tolerance: float = 15.0) -> None:
        _check_tolerance(tolerance)
        self.tolerance = tolerance
        self.name = f"pointing_game_{_spelled(tolerance)}"
        self.title = f"Pointing game, tolerance {tolerance:g} pixels"
        super().__init__()

    def update(self, heatmaps: Tensor, boxes: Sequence[Region], image_sizes: Sequence[tuple[int, int]]) -> None:
        """Count a batch; arguments as `pointing_game`. An image with neither box nor heat counts as without box."""
        self.count(pointing_game(heatmaps, boxes, image_sizes, tolerance=self.tolerance), boxes)


class StochasticPointingGame(LocalisationMetric):
    """Mean share of hits in %: `stochastic_pointing_game`, with separate counts of the two kinds of skipped images.

    Named `stochastic_pointing_game_<tolerance>`.

    >>> metric = StochasticPointingGame(tolerance=0)
    >>> metric.update(torch.ones(1, 3, 3), [[[0, 0, 9, 9]]], [(9, 9)], seeds=[0])
    >>> metric.name, metric.compute().item()
    ('stochastic_pointing_game_0', 100.0)
    """

    def __init__(self, *, num_samples: int = 100, tolerance: float = 15.0) -> None:
        _check_tolerance(tolerance)
        self.num_samples, self.tolerance = num_samples, tolerance
        self.name = f"stochastic_pointing_game_{_spelled(tolerance)}"
        self.title = f"Stochastic pointing game, {num_samples} points, tolerance {tolerance:g} pixels"
        super().__init__()

    def update(
        self,
        heatmaps: Tensor,
        boxes: Sequence[Region],
        image_sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
    ) -> None:
        """Count a batch; arguments as `stochastic_pointing_game`."""
        values = stochastic_pointing_game(
            heatmaps, boxes, image_sizes, seeds=seeds, num_samples=self.num_samples, tolerance=self.tolerance
        )
        self.count(values, boxes)


def _hits(
    heatmaps: Tensor,
    boxes: Sequence[Region],
    image_sizes: Sequence[tuple[int, int]],
    tolerance: float,
    points: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """The share in % of the points, flat indices `[P]` from each resized map and its index, that hit."""
    check_maps_and_regions(heatmaps, boxes, image_sizes)
    _check_tolerance(tolerance)
    shares = torch.full((len(heatmaps),), torch.nan, dtype=torch.float64, device=heatmaps.device)
    for index, (heatmap, region, size) in enumerate(zip(heatmaps, boxes, image_sizes, strict=True)):
        mask = object_mask(region, size, index).to(heatmaps.device)
        if has_object(region, index):
            resized = resized_positive(heatmap, size)
            flat = points(resized, index)
            hits = near_object(mask, flat // size[1], flat % size[1], tolerance)
            shares[index] = torch.where(resized.max() > 0, 100.0 * hits.double().mean(), torch.nan)
    return shares


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < math.inf:
        raise ArgumentError(f"`tolerance` must be a number of pixels that is not negative, got {tolerance}.")


def _spelled(tolerance: float) -> str:
    return f"{tolerance:g}".replace(".", "_")
