"""Grad-CAM consistency on composites (GCC: Pillai and Pirsiavash, "Explainable Models with Consistent Interpretations",
AAAI 2021): among images of other classes, the heatmap of a class stays where its image is.

For the heatmap g(x) of an image for its class, and that of a composite c(x) of 2 x 2 cells which holds x in one:

    n(a) = relu(a) / (sum relu(a) + eps) + eps

    target = n(g(x)) in the cell of x, 0 in the three others        [2h,2w]

    L = mean over cells of | n(g(c(x))) - target |

Maps are compared at layer size. The mean is over all 4 h w cells, so that the same weight counts less the finer the
map: at most 2 / (4 h w), which is 0.01 for the 14 x 14 cells of a composite of 448 pixels.

The gradient flows through both maps, as in the published code (the target is not detached), which has the eps too.

Legend: N images, h w heatmap cells of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.losses.consistency import EPS
from contrex.losses.inputs import Integers, check_maps, integers
from contrex.ops import heatmap


def gcc_loss(heatmaps: Tensor, heatmaps_composite: Tensor, cells: Integers) -> Tensor:
    """Mean absolute distance of the composites' heatmaps from the images' own, each in its cell (GCC, AAAI 2021).

    Args:
        heatmaps: `[N,h,w]`, raw maps of the images at layer size (the loss takes their positive part).
        heatmaps_composite: `[N,2h,2w]`, raw maps of the composites, for the same classes.
        cells: integers `[N]`, where each image is in its composite: 0 and 1 above, 2 and 3 below.

    Returns:
        A scalar from 0 to `2 / (4 h w)` (but for eps). All-zero maps count as maps of eps. NaN in a map
        gives NaN.

    Raises:
        ArgumentError: shapes or devices do not match, maps are not floating point, or `cells` (on a CPU) are not from 0
            to 3.

    >>> maps, cells = torch.rand(2, 4, 4), torch.tensor([0, 3])
    >>> round(gcc_loss(maps, in_cells(maps, cells), cells).item(), 6)
    0.0
    >>> round(gcc_loss(maps, in_cells(maps, 3 - cells), cells).item(), 6) == 2 / 64
    True
    """
    places = _check(heatmaps, heatmaps_composite, cells)
    target = in_cells(normalised(heatmaps), places)
    return (normalised(heatmaps_composite) - target).abs().mean()


def normalised(heatmaps: Tensor) -> Tensor:
    """Maps `[N,h,w]` divided by their sums, `relu(a) / (sum relu(a) + eps) + eps`, in float32 or better."""
    cells = heatmap.positive(heatmaps).to(torch.promote_types(heatmaps.dtype, torch.float32))
    return cells / (cells.sum((1, 2), keepdim=True) + EPS) + EPS


def in_cells(heatmaps: Tensor, cells: Tensor) -> Tensor:
    """Maps `[N,2h,2w]` with `heatmaps` [N,h,w] in their `cells` [N] and 0 in the others."""
    num, height, width = heatmaps.shape
    chosen = cells[:, None] == torch.arange(4, device=cells.device)
    grid = chosen.to(heatmaps).view(num, 2, 1, 2, 1) * heatmaps[:, None, :, None, :]
    return grid.reshape(num, 2 * height, 2 * width)


def _check(heatmaps: Tensor, heatmaps_composite: Tensor, cells: Integers) -> Tensor:
    """The `cells` as a tensor, once everything fits."""
    check_maps("heatmaps", heatmaps)
    check_maps("heatmaps_composite", heatmaps_composite, heatmaps)
    if heatmaps.ndim != 3 or heatmaps.numel() == 0:
        raise ArgumentError(
            f"`heatmaps` must be floating-point maps [N,h,w] with N >= 1, got {heatmaps.dtype} {list(heatmaps.shape)}."
        )
    num, height, width = heatmaps.shape
    if heatmaps_composite.shape != (num, 2 * height, 2 * width):
        raise ArgumentError(
            f"`heatmaps_composite` must be [{num},{2 * height},{2 * width}], twice the images' maps on each side; got "
            f"{list(heatmaps_composite.shape)}. Take an image size that the layer's stride divides."
        )
    places = integers("cells", cells, heatmaps.device)
    is_place = places.shape == (num,)
    # On a GPU the look at the numbers would wait for the device in every step.
    if not is_place or (places.device.type == "cpu" and not bool(((places >= 0) & (places < 4)).all())):
        raise ArgumentError(f"`cells` must be {num} numbers from 0 to 3, one per heatmap; got {places.tolist()}.")
    return places
