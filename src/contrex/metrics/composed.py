"""ADCC and ARCC: one score of a map, composed of how coherent, how simple and how telling it is.

Axes: N images, C channels, H W pixels, h w the heatmap at layer size, F fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, check_finite, check_saliency, in_chunks
from contrex.metrics.removal import Road, imputation_noise, pixel_ranks
from contrex.ops import heatmap

Measure = Literal["arcc", "adcc", "coherency", "complexity", "average_drop", "road"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


def unit_maps(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """The positive part of each map, resized to its image and stretched to 0..1; NaN where it is constant.

    `v = resize(relu(heatmap))`, `(v - min v) / (max v - min v)`: a CAM as Poppi et al. and pytorch-grad-cam have it.

    Args:
        heatmaps: raw signed maps `[N,h,w]`.
        size: `(H, W)` of the images.

    Returns:
        float32 or better, `[N,H,W]`.

    >>> unit_maps(torch.tensor([[[-3.0, 0.0, 2.0]]]), (1, 3))
    tensor([[[0., 0., 1.]]])
    """
    if heatmaps.ndim != 3:
        raise ArgumentError(f"`heatmaps` must be [N,h,w], got {list(heatmaps.shape)}.")
    check_finite("heatmaps", heatmaps)
    exact = heatmaps.detach().to(torch.promote_types(heatmaps.dtype, torch.float32))
    resized = heatmap.resize(heatmap.positive(exact), size)
    is_constant = resized.amax(dim=(1, 2)) == resized.amin(dim=(1, 2))
    stretched: Tensor = heatmap.normalise_min_max(resized).masked_fill(is_constant[:, None, None], torch.nan)
    return stretched


def coherency(maps: Tensor, maps_of_masked: Tensor) -> Tensor:
    """How alike the map of an image is to that of the image times its map: `(1 + r) / 2`, r Pearson's correlation.

    Poppi et al., "Revisiting the Evaluation of Class Activation Mapping for Explainability" (CVPR workshops 2021),
    section 3. Both are maps for one class.

    Args:
        maps, maps_of_masked: `unit_maps`, `[N,H,W]`.

    Returns:
        float64 `[N]` in 0..1; NaN where the first map is, and 0 where only the second one is, as in the paper's code.

    >>> one = torch.tensor([[[0.0, 1.0]]])
    >>> coherency(one, one), coherency(one, 1 - one).abs().round(decimals=9)
    (tensor([1.0000], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    _check_pair(maps, maps_of_masked)
    first, second = (one.double().flatten(1) for one in (maps, maps_of_masked))
    first, second = (one - one.mean(dim=1, keepdim=True) for one in (first, second))
    correlation = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    share: Tensor = ((1 + correlation.clamp(-1, 1)) / 2).nan_to_num(nan=0.0)
    return share.where(~maps.isnan().flatten(1).any(dim=1), torch.nan)


def complexity(maps: Tensor) -> Tensor:
    """How much of the image a map covers: its mean, 0..1 (the L1 norm over the number of pixels, Poppi et al.).

    >>> complexity(torch.tensor([[[0.0, 1.0]]]))
    tensor([0.5000], dtype=torch.float64)
    """
    return maps.double().mean(dim=(1, 2))


@asking("target", "logits", "batch_size", "task")
def road_difference(
    answers: Answers,
    saliency: Tensor,
    *,
    fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """How much more probable the class is without its least salient pixels than without its most salient ones.

    `mean_f p(x without the f H W least salient pixels) - p(x without the f H W most salient ones)`, removed pixels
    imputed as `road` does (Rong et al., ICML 2022), between -1 and 1. It is twice the `ROADCombined` of
    pytorch-grad-cam, which ARCC takes. *Deviations*: a number of pixels, where that has a threshold at a percentile,
    which removes all of a map with many zeros; and the noise, see `imputation_noise`.

    The network sees `2 N F` images.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there).
        saliency: `[N,H,W]`, signed, at the size of the images, of the target class.
        fractions: shares of the pixels that are removed, each above 0 and below 1.
        seeds: one per image, for the noise; None is 0 for each.

    Returns:
        float64 `[N]`.

    Raises:
        ArgumentError: a shape or a fraction does not fit, or the saliency is NaN.
    """
    check_saliency(answers.images, saliency)
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise ArgumentError(f"`fractions` must be one share of the pixels or more, between 0 and 1, got {fractions}.")
    noise, num_pixels = imputation_noise(answers.images, seeds), saliency[0].numel()
    counts = [round(fraction * num_pixels) for fraction in fractions]

    def difference(images: Tensor, own_noise: Tensor, ranks: Tensor, index: Tensor) -> Tensor:
        imputed, total = Road(images, own_noise), torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for count in counts:
            without_least = answers.of(imputed(ranks >= num_pixels - count), index).double()
            total += without_least - answers.of(imputed(ranks < count), index).double()
        return total / len(counts)

    ranks = pixel_ranks(saliency.detach()).to(answers.images.device)
    index = torch.arange(len(answers), device=answers.images.device)
    _ = answers.target  # known before the session: a pass of the whole images, where the logits are not given
    with answers.session():
        found = in_chunks(difference, answers.images, noise, ranks, index, num_images=answers.batch_size)
    return found.clone()  # outside inference mode: an ordinary tensor


def adcc(coherency: Tensor, complexity: Tensor, average_drop: Tensor) -> Tensor:
    """ADCC, the harmonic mean of coherency, 1 - complexity and 1 - average drop; 0 where one of them is 0.

    `3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - average_drop))`, 0..1, higher is better. Poppi et al. (CVPR
    workshops 2021), equation 6. *Deviation* from its code of one version, which forgets the inverse.

    Args:
        coherency, complexity: `[N]` in 0..1, as the functions of these names give them.
        average_drop: `max(0, p - p') / p` [N] (`drop_magnitude`), p' the probability for the image times its map.

    >>> adcc(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.5]))
    tensor([0.6000], dtype=torch.float64)
    """
    return _harmonic_mean({"coherency": coherency, "1 - complexity": 1 - complexity, "1 - drop": 1 - average_drop})


def arcc(coherency: Tensor, complexity: Tensor, road: Tensor) -> Tensor:
    """ARCC, the harmonic mean of coherency, 1 - complexity and ROAD; 0 where one of them is 0.

    `3 / (1 / coherency + 1 / (1 - complexity) + 1 / ROAD)`, 0..1, higher is better, ROAD `road_difference` where it is
    positive and else 0. "How to Evaluate and Refine your CAM" (Domeniconi et al., ICPR 2026, arXiv 2605.14641), as in
    pytorch-grad-cam 1.5.7: ADCC with ROAD in the place of the average drop.

    >>> arcc(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.5]))
    tensor([0.6000], dtype=torch.float64)
    """
    return _harmonic_mean({"coherency": coherency, "1 - complexity": 1 - complexity, "ROAD": road.clamp(min=0)})


class ComposedScore(PerSampleMetric):
    """One of the six measures of `MEASURES`: the scores ARCC and ADCC, or what they are made of.

    >>> metric = ComposedScore("coherency")
    >>> metric.update(torch.tensor([0.5, 1.0, torch.nan]))
    >>> metric.name, metric.compute().item()
    ('coherency', 0.75)
    """

    skip_reason = "a heatmap without positive values, or constant"
    _titles: ClassVar[Mapping[Measure, str]] = {
        "arcc": "ARCC",
        "adcc": "ADCC",
        "coherency": "Coherency",
        "complexity": "Complexity",
        "average_drop": "Average drop",
        "road": "ROAD, least minus most salient",
    }

    def __init__(self, measure: Measure = "arcc") -> None:
        if measure not in MEASURES:
            raise unknown_name("`measure`", measure, MEASURES)
        self.name, self.title = measure, self._titles[measure]
        self.higher_is_better = measure not in ("complexity", "average_drop")
        self.dims = {"measure": measure}
        super().__init__()

    def update(self, values: Tensor) -> None:
        """Count `values [N]`, NaN for skipped images."""
        self.append(values)


def _harmonic_mean(parts: dict[str, Tensor]) -> Tensor:
    """The harmonic mean of numbers `[N]` in 0..1: 0 where one is 0, NaN where one is NaN."""
    for name, values in parts.items():
        if values.ndim != 1 or not ((values >= -1e-6) & (values <= 1 + 1e-6) | values.isnan()).all():
            raise ArgumentError(f"{name} must be [N] in 0..1, got {values.tolist()}.")
    together = torch.stack([values.double().clamp(0, 1) for values in parts.values()])
    # 1 / 0 is infinite and its inverse 0, as in the limit.
    mean: Tensor = len(parts) / (1 / together).sum(dim=0)
    return mean


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.ndim != 3 or first.shape != second.shape:
        raise ArgumentError(
            f"`maps` and `maps_of_masked` must have one shape [N,H,W], got {list(first.shape)} and "
            f"{list(second.shape)}."
        )
