"""Max-sensitivity: how much a heatmap changes when the image hardly does.

Axes: N images, C channels, H W pixels, h w heatmap cells, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contrex.devices import images_at_once
from contrex.errors import ArgumentError
from contrex.metrics.infidelity import check_sampling, image_noise, noise_batches
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import check_images, in_chunks


def max_sensitivity(
    explain: Callable[..., Tensor],
    images: Tensor,
    *,
    radius: float = 0.02,
    num_samples: int = 10,
    seeds: Sequence[int],
    target: Tensor | None = None,
    heatmap: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The largest relative change of a heatmap among random small changes of the image.

    `sensitivity_n = max_s || phi(x_n + u_s) - phi(x_n) || / || phi(x_n) ||`, u uniform in `[-radius, radius]` at every
    pixel and channel, the norm that of all cells (Frobenius).

    Yeh et al. (NeurIPS 2019), section 3; as there, the maximum over the ball is that over S samples. *Deviations*: the
    paper's definition is not relative; the authors' code and `captum.metrics.sensitivity_max` divide by the norm of
    phi, and so do we, since scales of heatmaps are arbitrary. That code, however, divides its running maximum again
    with every sample. Where captum divides a map of zeros by 1, it has no value here. Noisy images may leave the range
    of pixels, as in both.

    Image n has its own generator, seeded with `seeds[n]`: see `contrex.metrics.infidelity`.

    Args:
        explain: images `[n,C,H,W]` -> heatmaps `[n,h,w]`, or any `[n,...]`. Called as `explain(images, target)` where
            `target` is given, so that the class stays the same, else as `explain(images)`: a class that it predicts
            anew may flip. Of an explainer: `lambda x, t: explainer(x, target=t).heatmap`.
        images: `[N,C,H,W]`, normalised as the network expects.
        radius: of the L-infinity ball, in units of the normalised input; captum's default is 0.02.
        num_samples: S; captum's default is 10. The maximum grows with S, so compare only equal ones.
        seeds: a seed in `0..2^63-1` for each image.
        target: classes `[N]`, or None.
        heatmap: `phi(x)` `[N,...]`, if known; it saves a call.
        batch_size: images per call of `explain`; None is 8 on a CPU and 64 elsewhere.

    Returns:
        float64 `[N]`, 0 or larger, on the images' device; NaN where the heatmap is all zero or a map is not finite.

    Raises:
        ArgumentError: a shape or a number does not fit, or `explain` does not return one heatmap per image.

    >>> images = torch.ones(2, 1, 4, 4)
    >>> steady = max_sensitivity(lambda x: torch.ones(len(x), 2, 2), images, radius=0.1, num_samples=5, seeds=[0, 1])
    >>> shaky = max_sensitivity(lambda x: x[:, 0], images, radius=0.1, num_samples=5, seeds=[0, 1])
    >>> steady.tolist(), bool((shaky > 0.03).all() and (shaky < 0.1).all())
    ([0.0, 0.0], True)
    """
    images = images.detach()
    check_images(images)
    num_images = images_at_once(images.device, batch_size)
    check_sampling(images, num_samples, seeds)
    _check(images, radius, target, heatmap)

    def phi(some: Tensor, index: Tensor) -> Tensor:
        return _cells(explain, some, None if target is None else target.to(images.device)[index])

    if heatmap is None:
        plain = in_chunks(phi, images, torch.arange(len(images), device=images.device), num_images=num_images)
    else:
        plain = heatmap.detach().flatten(1).double().to(images.device)
    draws = image_noise(images, seeds, num_samples, lambda shape, **to: radius * (2 * torch.rand(shape, **to) - 1))
    changes = []
    for index, noise in noise_batches(draws, num_samples, num_images):
        changes.append(_distances(phi(images[index] + noise, index), plain[index]))
    # Noise comes image by image, all samples of one in a row, so the rows of this view are the images.
    largest = torch.cat(changes).view(len(images), num_samples).amax(dim=1)
    return _or_nan(largest / torch.linalg.vector_norm(plain, dim=1))


class MaxSensitivity(PerSampleMetric):
    """Mean max-sensitivity over images, lower is better: `max_sensitivity`.

    >>> metric = MaxSensitivity()
    >>> metric.update(torch.tensor([0.25, torch.nan]))
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    name = "max_sensitivity"
    title = "Max-sensitivity"
    skip_reason = "the heatmap is all zero or not finite"
    higher_is_better = False

    def update(self, values: Tensor) -> None:
        """Count the `values [N]` that `max_sensitivity` returns; those that are not finite are skipped."""
        self.append(_or_nan(values))


def _or_nan(values: Tensor) -> Tensor:
    return values.where(values.isfinite(), torch.nan)


def _cells(explain: Callable[..., Tensor], images: Tensor, target: Tensor | None) -> Tensor:
    """The heatmaps of the images, each as a row of cells, float64."""
    images = images.clone()  # `explain` may write into it
    maps = explain(images) if target is None else explain(images, target)
    if not isinstance(maps, Tensor) or maps.ndim < 2 or len(maps) != len(images):
        got = list(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ArgumentError(f"`explain` must return heatmaps [n,h,w] of n = {len(images)} images, got {got}.")
    return maps.detach().flatten(1).double().to(images.device)


def _distances(maps: Tensor, plain: Tensor) -> Tensor:
    if maps.shape != plain.shape:
        raise ArgumentError(
            f"`heatmap` must have the size of what `explain` returns, {maps.shape[1]} cells; got {plain.shape[1]}."
        )
    distances: Tensor = torch.linalg.vector_norm(maps - plain, dim=1)
    return distances


def _check(images: Tensor, radius: float, target: Tensor | None, heatmap: Tensor | None) -> None:
    if not 0 < radius < float("inf"):
        raise ArgumentError(f"`radius` must be a positive number, got {radius}.")
    if target is not None and target.shape != images.shape[:1]:
        raise ArgumentError(f"`target` must be [{len(images)}], one class per image, got {list(target.shape)}.")
    if heatmap is not None and (heatmap.ndim < 2 or len(heatmap) != len(images)):
        raise ArgumentError(f"`heatmap` must be [N,h,w] with N = {len(images)}, got {list(heatmap.shape)}.")
