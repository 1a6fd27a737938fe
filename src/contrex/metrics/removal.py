"""Removing pixels: in which order they go, and what they become.

| name | a removed pixel becomes |
|---|---|
| `blur` | itself under an 11x11 Gaussian blur of sigma 5 that darkens the border: RISE (BMVC 2018) and its code |
| `reflected_blur` | itself under a Gaussian blur of sigma 15, 101 pixels wide, with a mirrored border: the code of |
| | "Why Not Other Classes?" (NeurIPS 2022) |
| `zero` | 0 in the network's normalised input, the mean colour of the data set: the code of both |
| `mean` | the mean of the image, channel by channel: "Why Not Other Classes?" |
| `road` | what its neighbours suggest, and noise (noisy linear imputation): ROAD (ICML 2022) |

All but the last are one image, made once; `road` depends on which pixels are removed. Settings and records of the
relative probability call `reflected_blur` what its paper calls it, `blur`; everywhere else `blur` is RISE's.

Axes: N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.probing import check_seeds
from contrex.ops.imputation import LinearImputation
from contrex.ops.pixels import gaussian_blur, reflected_blur

BASELINES = ("blur", "reflected_blur", "zero", "mean", "road")
"""The names."""

PAIR_BASELINES = {"blur": "reflected_blur", "zero": "zero", "mean": "mean"}
"""What the relative probability of two classes calls the baselines that it was published with, and their names here."""

NOISE = 0.01
"""Standard deviation of `road`'s noise, in normalised units: the default of pytorch-grad-cam and Quantus."""


def pixel_order(saliency: Tensor, *, descending: bool = True) -> Tensor:
    """The pixels of each map from the most salient down, as flat indices `[N,HW]`; equal ones row by row.

    >>> pixel_order(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]))
    tensor([[1, 2, 3, 0]])
    """
    return saliency.flatten(1).argsort(dim=1, descending=descending, stable=True)


def ranks_of(order: Tensor) -> Tensor:
    """The place of each pixel in an `order` `[N,HW]`, from 0, `[N,HW]`.

    >>> ranks_of(torch.tensor([[1, 2, 3, 0]]))
    tensor([[3, 0, 1, 2]])
    """
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def pixel_ranks(saliency: Tensor, *, descending: bool = True) -> Tensor:
    """The place of each pixel from the most salient, 0, down, `[N,H,W]`: the k most salient have a rank below k.

    >>> pixel_ranks(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]])) < 2
    tensor([[[False,  True],
             [ True, False]]])
    """
    return ranks_of(pixel_order(saliency, descending=descending)).view(saliency.shape)


def replaced_images(
    images: Tensor, removed: Tensor, baseline: Tensor | str, *, seeds: Sequence[int] | None = None
) -> Tensor:
    """The images with the removed pixels replaced, in all channels.

    Args:
        images: `[N,C,H,W]`, normalised.
        removed: boolean `[N,H,W]`.
        baseline: a name of `BASELINES`, or an image `[N,C,H,W]` or broadcast to it.
        seeds: one per image, for the noise of `road`; None is 0 for each.

    Returns:
        `[N,C,H,W]`, dtype and device of `images`.

    Raises:
        UnknownNameError: there is no such baseline.
        ArgumentError: shapes do not match, or for `road` an image is not finite.

    >>> image, removed = torch.tensor([[[[1.0, 2.0, 6.0]]]]), torch.tensor([[[False, True, False]]])
    >>> replaced_images(image, removed, "zero")
    tensor([[[[1., 0., 6.]]]])
    >>> replaced_images(image, removed, "mean")
    tensor([[[[1., 3., 6.]]]])
    """
    if is_road(baseline):
        return road(images, removed, imputation_noise(images, seeds))
    expected = [images.shape[0], *images.shape[2:]]
    if list(removed.shape) != expected or removed.dtype != torch.bool:
        raise ArgumentError(f"`removed` must be boolean {expected}, got {removed.dtype} {list(removed.shape)}.")
    return torch.where(removed[:, None], baseline_image(images, baseline), images)


def baseline_image(images: Tensor, baseline: Tensor | str, *, sigma: float | Tensor = 15.0) -> Tensor:
    """The image `[N,C,H,W]` that removed pixels are taken from: a baseline that is one image, or a tensor, broadcast.

    Args:
        images: `[N,C,H,W]`, in the network's normalised space.
        baseline: "blur", "reflected_blur", "zero", "mean" or a tensor.
        sigma: of `reflected_blur`, one number or `[N]`.

    Raises:
        UnknownNameError: there is no such baseline.
        ArgumentError: a tensor does not broadcast to the images, or the baseline is `road`, which is not one image.
    """
    if isinstance(baseline, Tensor):
        return _expand(baseline, images)
    if baseline == "blur":
        return gaussian_blur(images)
    if baseline == "reflected_blur":
        return reflected_blur(images, sigma)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        return _expand(exact.mean(dim=(2, 3), keepdim=True), images)
    if is_road(baseline):
        raise ArgumentError(
            "`baseline` 'road' depends on the removed pixels and is not one image: use `replaced_images`."
        )
    raise unknown_name("`baseline`", baseline, BASELINES)


def baseline_images(
    images: Tensor, names: Sequence[str] = tuple(PAIR_BASELINES), *, sigma: float | Tensor = 15.0
) -> dict[str, Tensor]:
    """What removed pixels become in the relative probability of two classes, by name, each `[N,C,H,W]`.

    "Why Not Other Classes?" (NeurIPS 2022), section 5.2: `blur`, which is the `reflected_blur` of `sigma` and not the
    blur of insertion curves, `zero` and `mean`; all of it in the space that `images` are given in, the network's
    normalised one, as in the published code.

    Raises:
        UnknownNameError: a name is not one of these.
        ArgumentError: as `contrex.ops.pixels.reflected_blur`.

    >>> baseline_images(torch.tensor([[[[1.0, 2.0]]]]), ["zero", "mean"])["mean"]
    tensor([[[[1.5000, 1.5000]]]])
    """
    for name in names:
        if name not in PAIR_BASELINES:
            raise unknown_name("`names`", name, PAIR_BASELINES)
    return {name: baseline_image(images, PAIR_BASELINES[name], sigma=sigma) for name in names}


def is_road(baseline: Tensor | str) -> bool:
    """Whether a baseline is `road`: the removed pixels have to be known before what they become is."""
    return isinstance(baseline, str) and baseline == "road"


def road(images: Tensor, removed: Tensor, noise: Tensor) -> Tensor:
    """The images with removed pixels imputed from their neighbours, and `noise` on them (noisy linear imputation).

    ROAD, "Remove and Debias" (Rong et al., ICML 2022): a hole filled from around it tells the network as little as
    possible of its shape, from which alone the class can often be read. The noise is there because a filling without
    any texture would give the hole away again.

    Args:
        images: `[N,C,H,W]`, normalised.
        removed: boolean `[N,H,W]`.
        noise: `[N,C,H,W]`, as from `imputation_noise`.

    Returns:
        `[N,C,H,W]`; errors as `linear_imputation`.
    """
    return Road(images, noise)(removed)


class Road:
    """Imputes the same images, as `road` does, for one set of removed pixels after another."""

    def __init__(self, images: Tensor, noise: Tensor) -> None:
        self._images, self._noise, self._imputed = images, noise, LinearImputation(images)

    def __call__(self, removed: Tensor) -> Tensor:
        return torch.where(removed[:, None], self._imputed(removed) + self._noise, self._images)


def imputation_noise(images: Tensor, seeds: Sequence[int] | None = None, *, deviation: float = NOISE) -> Tensor:
    """Gaussian noise `[N,C,H,W]`, of each image a function of its own seed: the same in any batch, on any device.

    *Deviation*: the published code draws anew for every set of removed pixels; here an image keeps its noise, so that
    the points of its curve differ by the pixels removed and by nothing else.

    Args:
        images: what the noise is for; shape, dtype and device are theirs.
        seeds: one integer per image; None is 0 for each.
        deviation: the standard deviation, in normalised units.

    Raises:
        ArgumentError: there is not one seed per image, or `deviation` is negative.
    """
    seeds = [0] * len(images) if seeds is None else seeds
    check_seeds(seeds, len(images))
    if not deviation >= 0:
        raise ArgumentError(f"`deviation` must be 0 or more, got {deviation}.")
    # Drawn once for each seed: most callers give all images the same.
    fields = {seed: _field(images.shape[1:], seed) for seed in {int(seed) for seed in seeds}}
    return deviation * torch.stack([fields[int(seed)] for seed in seeds]).to(images)


def _field(shape: torch.Size, seed: int) -> Tensor:
    """Normal noise for one image, the same whatever the default device and type are."""
    # A generator of its own: the image has the same noise at every step of its curve.
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def _expand(baseline: Tensor, images: Tensor) -> Tensor:
    try:
        return torch.empty_like(images).copy_(baseline.detach())  # in the images' memory format
    except RuntimeError:
        raise ArgumentError(
            f"`baseline` must have the images' shape {list(images.shape)} or broadcast to it, "
            f"got {list(baseline.shape)}."
        ) from None
