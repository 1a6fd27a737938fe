"""How alike two heatmaps of an image are.

Axes: N images, H W pixels (or cells) of a heatmap, P = H W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.probing import check_finite

KINDS = {"spearman": "Spearman", "spearman_abs": "Spearman of absolute values", "ssim": "SSIM"}
"""How maps are compared: rank correlation of the signed maps, of their absolute values, or structural similarity."""

_SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; smaller maps have no pixel with a whole one around it."""

_SSIM_SIGMA = 1.5
"""Of that window, in pixels, as Wang et al. have it."""

_SSIM_FLOORS = (0.01**2, 0.03**2)
"""C1 and C2 of Wang et al. for values in 0..1: they keep both quotients finite where maps are flat."""


def map_similarity(heatmaps: Tensor, others: Tensor, kind: str = "spearman") -> Tensor:
    """How alike the maps of each image are, float64 `[N]` in -1..1.

    | `kind` | |
    |---|---|
    | `spearman` | correlation of the ranks of the signed values; equal values share their mean rank |
    | `spearman_abs` | of the absolute values, which sees the same edges with the opposite sign as alike |
    | `ssim` | structural similarity (Wang et al., 2004), Gaussian window 11x11, sigma 1.5 |

    All three are used by Adebayo et al. (NeurIPS 2018). For `ssim` a map is
    `(1 + heatmap / max |heatmap|) / 2`, in 0..1 with zero in the middle: of values around 0 both factors of SSIM change
    sign with the map, and a map would be like its own negative.

    Args:
        heatmaps: `[N,H,W]`, raw and signed.
        others: `[N,H,W]`, with which they are compared.
        kind: see above.

    Returns:
        float64 `[N]` on the maps' device; NaN where a map is constant (ranks) or zero everywhere (`ssim`).

    Raises:
        UnknownNameError: there is no such kind.
        ArgumentError: shapes differ, a map is not finite, or is smaller than 11x11 for `ssim`.

    >>> heatmap = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> map_similarity(heatmap, heatmap**3), map_similarity(heatmap, -heatmap)
    (tensor([1.0000], dtype=torch.float64), tensor([-1.0000], dtype=torch.float64))
    """
    if kind not in KINDS:
        raise unknown_name("`kind`", kind, KINDS)
    _check(heatmaps, others, kind)
    first, second = heatmaps.detach().double(), others.detach().to(heatmaps.device, torch.float64)
    if kind == "ssim":
        return _structural_similarity(first, second)
    if kind == "spearman_abs":
        first, second = first.abs(), second.abs()
    return _correlation(_ranks(first.flatten(1)), _ranks(second.flatten(1)))


def chance_similarity(heatmaps: Tensor, kind: str = "spearman") -> Tensor:
    """Similarity of each image's map with the next image's, float64 `[N]`: what maps share that have nothing in common.

    Centred objects, smooth maps and one sign make even these alike; arguments and errors as `map_similarity`, N >= 2.

    >>> chance_similarity(torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]], [[2.0, 1.0, 0.0]]]))
    tensor([ 1.0000, -1.0000, -1.0000], dtype=torch.float64)
    """
    if len(heatmaps) < 2:
        raise ArgumentError(f"`heatmaps` must be of at least 2 images, got {len(heatmaps)}.")
    return map_similarity(heatmaps, heatmaps.roll(-1, dims=0), kind)


def _ranks(values: Tensor) -> Tensor:
    """Ranks `[N,P]` from 1 to P, float64; equal values have the mean of their ranks."""
    ordered = values.sort(dim=1).values
    first = torch.searchsorted(ordered, values.contiguous(), right=False)
    last = torch.searchsorted(ordered, values.contiguous(), right=True)
    # `first` values are smaller and `last - first` equal: their ranks run from first + 1 to last.
    return (first + last + 1).double() / 2


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of two rows `[N]`; NaN, from 0/0, where one is constant."""
    first, second = (values - values.mean(dim=1, keepdim=True) for values in (first, second))
    similarity: Tensor = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    return similarity.clamp(-1, 1)


def _structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """SSIM `[N]` of the maps in 0..1, NaN where one is zero everywhere."""
    largest = torch.stack([first.abs().amax(dim=(1, 2)), second.abs().amax(dim=(1, 2))])
    empty = (largest == 0).any(dim=0)
    scale = 2 * largest.where(largest > 0, 1.0)[:, :, None, None]
    return _ssim(0.5 + first / scale[0], 0.5 + second / scale[1]).masked_fill(empty, torch.nan).clamp(-1, 1)


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """The mean over all pixels of `(2 mu_x mu_y + C1) (2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (s_x^2 + s_y^2 + C2))`,
    means, variances and covariance being weighed by the window (Wang et al., 2004, eq. 13); borders are mirrored."""
    distance = torch.arange(_SSIM_WINDOW, dtype=x.dtype, device=x.device) - _SSIM_WINDOW // 2
    weight = torch.exp(-0.5 * (distance / _SSIM_SIGMA) ** 2)
    line = weight / weight.sum()  # the window is the product of a row and a column of it: 22 products a pixel, not 121
    x, y = (pad(maps, [_SSIM_WINDOW // 2] * 4, mode="reflect") for maps in (x, y))
    together = torch.cat([x, y, x * x, y * y, x * y])[:, None]
    smooth = conv2d(conv2d(together, line[None, None, None]), line[None, None, :, None])
    mean_x, mean_y, *products = smooth.view(5, len(x), -1)
    # A variance as a difference of two means may round to less than 0.
    of_x, of_y = ((product - mean**2).clamp(min=0) for product, mean in zip(products, (mean_x, mean_y), strict=False))
    shared = products[2] - mean_x * mean_y
    low, high = _SSIM_FLOORS
    similarity = (2 * mean_x * mean_y + low) * (2 * shared + high)
    mean: Tensor = (similarity / ((mean_x**2 + mean_y**2 + low) * (of_x + of_y + high))).mean(dim=1)
    return mean


def _check(heatmaps: Tensor, others: Tensor, kind: str) -> None:
    if heatmaps.ndim != 3 or heatmaps.shape != others.shape or heatmaps.numel() == 0:
        raise ArgumentError(
            "`heatmaps` and `others` must have one shape [N,H,W] with N >= 1, "
            f"got {list(heatmaps.shape)} and {list(others.shape)}."
        )
    for name, maps in (("heatmaps", heatmaps), ("others", others)):
        check_finite(name, maps)
    if kind == "ssim" and min(heatmaps.shape[1:]) < _SSIM_WINDOW:
        raise ArgumentError(
            f"`heatmaps` must be at least {_SSIM_WINDOW}x{_SSIM_WINDOW} for 'ssim', got {list(heatmaps.shape[1:])}: "
            "resize them first."
        )
