"""Drawing explanations: each picture, its signed map over it, and a colour bar that says what the colours are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrex.errors import ArgumentError, printable
from contrex.ops import heatmap as heatmaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_MAP = "PuOr_r"
"""Diverging, neutral at zero, told apart with any common colour blindness: orange is for, purple against."""

FULL_COLOUR = 0.995
"""Quantile of a map's absolute values that has the full colour: single pixels beyond it, which maps at the pixels have,
do not fade the others. The colour bar's pointed ends say that there are some."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One raw map [h,w] and the question it answers."""

    heatmap: Tensor
    question: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a sheet: a picture [H,W,3] in [0, 1] with its caption, and the maps beside it."""

    picture: NDArray[np.float32]
    panels: Sequence[Panel]
    caption: str = ""


def draw(rows: Sequence[Row]) -> Figure:
    """The sheet: pictures on the left, maps on the right, each map centred on zero with a scale of its own."""
    from matplotlib.figure import Figure

    if not rows:
        raise ArgumentError("`rows` is empty: there is nothing to draw.")
    num_columns = 1 + max(len(row.panels) for row in rows)
    heights = [3.5 * row.picture.shape[0] / row.picture.shape[1] + 0.5 for row in rows]
    figure = Figure(figsize=(3.8 * num_columns, sum(heights)), layout="constrained")
    axes = figure.subplots(len(rows), num_columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    for (left, *others), row in zip(axes, rows, strict=True):
        left.imshow(row.picture)
        _title(left, row.caption)
        for axis, panel in zip(others, row.panels, strict=False):
            _overlay(axis, row.picture, panel)
    return figure


def pictures(
    images: Tensor, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> NDArray[np.float32]:
    """Normalised images `[N,3,H,W]` as pictures `[N,H,W,3]` in [0, 1]; stretched to it where nothing tells how."""
    restored = images.detach().float()
    if mean is not None or std is not None:
        scale, offset = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (std or (1.0,), mean or (0.0,)))
        restored = restored * scale + offset
    elif restored.numel() and (float(restored.min()) < 0 or float(restored.max()) > 1):
        restored = heatmaps.normalise_min_max(restored.flatten(1, 2)).reshape(restored.shape)
    shown: NDArray[np.float32] = restored.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return shown


def _overlay(axis: Axes, picture: NDArray[np.float32], panel: Panel) -> None:
    """The map over the grey picture; where it is near zero the picture shows through."""
    height, width = picture.shape[:2]
    values = heatmaps.resize(panel.heatmap.detach().float().cpu()[None], (height, width))[0].numpy()
    largest = float(np.abs(values).max())
    axis.imshow(np.clip(picture.mean(-1) * 0.6 + 0.4, 0, 1), cmap="gray", vmin=0, vmax=1)
    scale = float(np.quantile(np.abs(values), FULL_COLOUR)) or largest or 1.0
    shown = axis.imshow(
        values, cmap=COLOUR_MAP, vmin=-scale, vmax=scale, alpha=np.clip(np.abs(values) / scale, 0.1, 0.8)
    )
    bar = axis.figure.colorbar(
        shown, ax=axis, fraction=0.045, pad=0.02, extend="both" if largest > scale else "neither"
    )
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.ax.tick_params(labelsize=7)
    legend = "orange for, purple against" if largest else "empty map: zero everywhere"
    _title(axis, f"{panel.question}\n{legend}".strip())


def _title(axis: Axes, text: str) -> None:
    """A title as it is: names of files and classes are no formulas, and need not be Unicode."""
    axis.set_title(printable(text), fontsize=9, parse_math=False)
