"""Masking images by heatmaps that are compared: which pixels are kept.

Axes: N images, C channels, H W pixels, h w heatmap cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.probing import check_no_nan
from contrex.metrics.removal import pixel_ranks

SIGNS = ("positive", "negative")
"""Evidence for the class, or against it."""

PROTOCOLS = ("same-area", "paper", "published-code")
"""How many pixels each map keeps; the first is the default."""


def kept_pixels(
    heatmap: Tensor, other: Tensor | None = None, *, sign: str = "positive", protocol: str = "same-area"
) -> Tensor:
    """The pixels that `heatmap` keeps when it is compared with `other`; all the rest is replaced by a baseline.

    With `P`, `M` the numbers of positive and of negative pixels of `heatmap`, `P'`, `M'` those of `other`, and rank 0
    the lowest pixel of `heatmap`:

    | protocol | `sign="positive"` keeps | `sign="negative"` keeps |
    |---|---|---|
    | `same-area` | the `min(P, P')` highest | the `min(M, M')` lowest |
    | `paper` | every pixel `> 0`: P of them | every pixel `< 0`: M of them |
    | `published-code` | ranks `>= min(P, P')` | ranks `<= HW - max(M, M')` |

    "Why Not Other Classes?" (NeurIPS 2022), section 5.2 (`paper`) and appendix G (the other two). In `paper` a map with
    a larger area shows the network more of the image, whatever it ranks first. `same-area` takes that away: both maps
    keep equally many pixels, and as the *smaller* number is taken, all of them have the sign that is asked for in
    their own map; the larger would fill one map up with pixels that it counts as evidence for the opposite.

    `published-code` also keeps equally many pixels of both maps, but other ones than its name suggests: as many
    pixels are *replaced* as are positive (or negative), so a map that is positive almost everywhere keeps almost
    nothing. Its `rank > HW - n` replaces `n - 1` pixels, not n. *Deviations*: equal values are ordered by pixel index,
    row by row, where its `argsort` leaves that open. The function without equal areas in the same code replaces pixels
    `< 0` in positive mode, and so keeps zeros; here, as in the paper, a zero is no evidence and is replaced.

    Args:
        heatmap: `[N,H,W]`, signed, at the size of the images.
        other: the map that `heatmap` is compared with, of the same shape; `paper` does not look at it.
        sign: `"positive"` or `"negative"`.
        protocol: `"same-area"`, `"paper"` or `"published-code"`.

    Returns:
        Boolean `[N,H,W]`, True where the pixel is kept. For what `other` keeps, swap the two.

    Raises:
        UnknownNameError: `sign` or `protocol` is not one of those above.
        ArgumentError: `other` is needed and missing, the shapes differ, or a map holds NaN.

    >>> heatmap, other = torch.tensor([[[3.0, 2.0, 1.0, -1.0]]]), torch.tensor([[[1.0, -2.0, -3.0, -4.0]]])
    >>> kept_pixels(heatmap, other, sign="positive").int()
    tensor([[[1, 0, 0, 0]]], dtype=torch.int32)
    >>> kept_pixels(heatmap, sign="positive", protocol="paper").int()
    tensor([[[1, 1, 1, 0]]], dtype=torch.int32)
    >>> kept_pixels(heatmap, other, sign="positive", protocol="published-code").int()
    tensor([[[1, 1, 1, 0]]], dtype=torch.int32)
    """
    _check(heatmap, other, sign, protocol)
    if protocol == "paper" or other is None:
        return _of_sign(heatmap, sign)
    if protocol == "same-area":
        number = torch.minimum(_count(heatmap, sign), _count(other, sign))
        return _first(heatmap, number, descending=sign == "positive")
    if sign == "positive":
        number = torch.minimum(_count(heatmap, sign), _count(other, sign))
        return ~_first(heatmap, number, descending=False)
    # As published, with the larger number and one pixel more: see the docstring.
    number = torch.maximum(_count(heatmap, sign), _count(other, sign))
    return _first(heatmap, heatmap[0].numel() - number + 1, descending=False)


def upsample(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """Heatmaps `[...,h,w]` at the size `[...,H,W]`, as in the published code: bilinear, `align_corners=True`.

    The result is float32 or better. The centres of the corner cells come to lie on the corner pixels: the map is
    stretched further than by `contrex.ops.heatmap.resize`, where they lie half a cell inside.

    >>> upsample(torch.tensor([[[0.0, 3.0]]]), (1, 4))
    tensor([[[0., 1., 2., 3.]]])
    """
    fine = heatmaps.to(torch.promote_types(heatmaps.dtype, torch.float32))
    cells = fine.reshape(-1, 1, *fine.shape[-2:])
    return interpolate(cells, size=size, mode="bilinear", align_corners=True).view(*fine.shape[:-2], *size)


def _of_sign(heatmap: Tensor, sign: str) -> Tensor:
    return heatmap > 0 if sign == "positive" else heatmap < 0


def _count(heatmap: Tensor, sign: str) -> Tensor:
    return _of_sign(heatmap, sign).flatten(1).sum(dim=1)


def _first(heatmap: Tensor, number: Tensor, *, descending: bool) -> Tensor:
    """The `number [N]` first pixels of each map in order, boolean `[N,H,W]`; of equal ones the lower index is first."""
    return pixel_ranks(heatmap, descending=descending) < number[:, None, None]


def _check(heatmap: Tensor, other: Tensor | None, sign: str, protocol: str) -> None:
    if sign not in SIGNS:
        raise unknown_name("`sign`", sign, SIGNS)
    if protocol not in PROTOCOLS:
        raise unknown_name("`protocol`", protocol, PROTOCOLS)
    if heatmap.ndim != 3 or not heatmap[:1].numel():
        raise ArgumentError(f"`heatmap` must be [N,H,W] with N >= 1, got {list(heatmap.shape)}.")
    if other is None and protocol != "paper":
        raise ArgumentError(
            f"`other` is needed by protocol {protocol!r}, which gives two maps the same area: "
            'pass the map to compare with, or protocol="paper".'
        )
    if other is not None and other.shape != heatmap.shape:
        raise ArgumentError(f"`other` must be {list(heatmap.shape)} as `heatmap`, got {list(other.shape)}.")
    for name, values in (("heatmap", heatmap), ("other", other)):
        if values is not None:
            check_no_nan(name, values)
