"""Drawing explanations: each picture, its signed map over it, and a colour bar that says what the colours are worth."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from contrex.errors import ArgumentError, printable
from contrex.ops import heatmap as heatmaps
from contrex.ops.colour import SIGNED_WORDS, map_rgb, overlaid_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL_COLOUR = 0.995
"""Quantile of a map's absolute values that has the full colour: single cells beyond it do not fade the others. A colour
bar's pointed ends say that there are some."""

FULL_COLOUR_OF_PIXELS = 0.98
"""The same for a map of more than `FINE` cells: grain, of which a few pixels are many times as strong as the others."""

FINE = 4096

LARGEST_RATIO = 4.0
"""Of height to width, or width to height, of a picture as it is drawn: longer ones are drawn as if they had this."""

LARGEST_SIDE = 1024
"""Pixels of the longer side of a picture as it is drawn, about twice what a figure has for it."""

LARGEST_FIGURE = 400.0
"""Inches of height: at 150 dots per inch the most that fits into an image file."""


TITLE_WIDTH = 50
"""Letters in a line of a title, about the width of a picture."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One raw map [h,w], the question it answers, and what a cell is worth."""

    heatmap: Tensor
    question: str = ""
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a sheet: a picture [H,W,3] in [0, 1] with its caption, and the maps beside it."""

    picture: NDArray[np.float32]
    panels: Sequence[Panel]
    caption: str = ""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the sheet: pictures on the left, maps on the right, each map centred on zero with a scale of its own."""
    from matplotlib.figure import Figure

    if not rows:
        raise ArgumentError("`rows` is empty: there is nothing to draw.")
    num_columns = 1 + max(len(row.panels) for row in rows)
    heights = [3.5 * _ratio(row.picture) + 0.5 for row in rows]
    if sum(heights) > LARGEST_FIGURE:
        raise ArgumentError(
            f"{len(rows)} pictures make a figure of {sum(heights):.0f} inches, higher than an image file can be: draw "
            f"at most {int(len(rows) * LARGEST_FIGURE / sum(heights))} at a time."
        )
    figure = Figure(figsize=(3.8 * num_columns, sum(heights)), layout="constrained")
    axes = figure.subplots(len(rows), num_columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    for (left, *others), row in zip(axes, rows, strict=True):
        left.imshow(row.picture, aspect=_stretch(row.picture))
        _title(left, row.caption)
        for axis, panel in zip(others, row.panels, strict=False):
            _overlay(axis, row.picture, panel)
    return figure


def draw_signals(signals: Tensor, panels: Sequence[Panel], captions: Sequence[str]) -> Figure:
    """Draw signals [N,C,L] as lines, one below another, each before the colours of its map [l].

    Raises:
        ArgumentError: a map or a signal is not finite.
    """
    from matplotlib.figure import Figure

    lines = signals.detach().float().cpu().numpy()
    if not np.isfinite(lines).all():
        raise ArgumentError("`images` must be finite to be drawn, they hold NaN or infinity.")
    figure = Figure(figsize=(8.0, 2.6 * len(lines)), layout="constrained")
    for axis, line, panel, caption in zip(
        figure.subplots(len(lines), 1, squeeze=False).flat, lines, panels, captions, strict=True
    ):
        values = heatmaps.resize(_finite(panel.heatmap)[None], line.shape[1])[0].numpy()
        limit = full_colour(_finite(panel.heatmap).numpy())
        low, high = float(line.min()), float(line.max())
        margin = 0.05 * (high - low) or 1.0
        # Half a step beyond the first and last place, so that each has its colour around it.
        extent = (-0.5, line.shape[1] - 0.5, low - margin, high + margin)
        axis.imshow(map_rgb(values[None], limit), aspect="auto", extent=extent, interpolation="nearest")
        axis.plot(line.T, linewidth=0.8, color="black" if len(line) == 1 else None)
        axis.set_ylabel(caption, fontsize=8, parse_math=False)
        _legend(axis, panel, values, limit)
    return figure


def pictures(
    images: Tensor,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """Normalised images `[N,C,H,W]` as pictures `[N,H,W,3]` in [0, 1], no side longer than `LARGEST_SIDE`.

    One channel is grey, three are red, green and blue; of others `channels` names one or three. Without `mean` and
    `std` images that leave [0, 1] are stretched to it; uint8 is divided by 255.

    Raises:
        ArgumentError: the channels cannot be drawn, `mean` or `std` do not fit them, or a pixel is not finite.
    """
    restored = images.detach().float() / (255 if images.dtype == torch.uint8 else 1)
    if not bool(restored.isfinite().all()):
        raise ArgumentError("`images` must be finite to be drawn, they hold NaN or infinity.")
    if mean is not None or std is not None:
        restored = restored * _per_channel("std", std or (1.0,), images) + _per_channel("mean", mean or (0.0,), images)
    chosen = restored[:, _drawn_channels(images.shape[1], channels)]
    if mean is None and std is None and (float(chosen.min()) < 0 or float(chosen.max()) > 1):
        chosen = heatmaps.normalise_min_max(chosen.flatten(1, 2)).reshape(chosen.shape)
    longest = max(chosen.shape[2:])
    if longest > LARGEST_SIDE:
        size = [max(1, round(side * LARGEST_SIDE / longest)) for side in chosen.shape[2:]]
        chosen = F.interpolate(chosen, size, mode="area")
    shown: NDArray[np.float32] = chosen.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    return shown


def _per_channel(name: str, values: tuple[float, ...], images: Tensor) -> Tensor:
    if len(values) not in (1, images.shape[1]):
        raise ArgumentError(
            f"`{name}` must be one number, or one for each of the {images.shape[1]} channels; got {len(values)}."
        )
    return torch.tensor(values, device=images.device, dtype=torch.float32).view(-1, 1, 1)


def _drawn_channels(num_channels: int, channels: Sequence[int] | None) -> list[int]:
    """The one (grey) or three (red, green, blue) of the channels that are drawn."""
    chosen = list(range(num_channels) if channels is None else channels)
    if len(chosen) not in (1, 3) or not all(-num_channels <= channel < num_channels for channel in chosen):
        raise ArgumentError(
            f"`images` have {num_channels} channels, and a picture is drawn of one or three of them; got `channels` "
            f"{None if channels is None else chosen}: name them, `channels=(0, 1, 2)` or `channels=(0,)`."
        )
    return chosen


def _ratio(picture: NDArray[np.float32]) -> float:
    """Height of a picture to its width, as it is drawn."""
    height, width = picture.shape[:2]
    return min(max(float(height / width), 1 / LARGEST_RATIO), LARGEST_RATIO)


def _stretch(picture: NDArray[np.float32]) -> float:
    """How many times as high as wide a pixel is drawn; 1 but for very long pictures."""
    height, width = picture.shape[:2]
    return _ratio(picture) * float(width / height)


def _overlay(axis: Axes, picture: NDArray[np.float32], panel: Panel) -> None:
    """Draw a map over its grey picture (`overlaid_rgb`), and a bar of its colours."""
    height, width = picture.shape[:2]
    heatmap = _finite(panel.heatmap)
    values = heatmaps.resize(heatmap[None], (height, width))[0].numpy()
    limit = full_colour(heatmap.numpy())
    axis.imshow(overlaid_rgb(picture, values, limit), aspect=_stretch(picture))
    _legend(axis, panel, values, limit)


def _finite(heatmap: Tensor) -> Tensor:
    """A map on the CPU, or `ArgumentError` where it is not finite."""
    heatmap = heatmap.detach().float().cpu()
    if not bool(heatmap.isfinite().all()):
        raise ArgumentError("`heatmap` must be finite to be drawn, it holds NaN or infinity.")
    return heatmap


def _legend(axis: Axes, panel: Panel, values: NDArray[np.float32], limit: float) -> None:
    """A bar of a map's colours beside it, and its question above."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ListedColormap(map_rgb(np.linspace(-1, 1, 256)[None], 1.0)[0] / 255, "contrex")
    extend = "both" if float(np.abs(values).max()) > limit else "neither"
    scale = ScalarMappable(Normalize(-limit, limit), colours)
    bar = axis.figure.colorbar(scale, ax=axis, fraction=0.045, pad=0.02, extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(panel.unit, fontsize=7, parse_math=False)
    legend = SIGNED_WORDS if bool(panel.heatmap.any()) else "empty map: zero everywhere"
    _title(axis, f"{panel.question}\n{legend}".strip())


def full_colour(values: NDArray[np.float32]) -> float:
    """The absolute value of a map that has the full colour; 1 of an empty one."""
    share = FULL_COLOUR_OF_PIXELS if values.size > FINE else FULL_COLOUR
    return float(np.quantile(np.abs(values), share)) or float(np.abs(values).max()) or 1.0


def _title(axis: Axes, text: str) -> None:
    """Write a title as it is: names of files and classes are no formulas, and need not be Unicode."""
    lines = [part for line in printable(text).split("\n") for part in textwrap.wrap(line, TITLE_WIDTH) or [""]]
    axis.set_title("\n".join(lines), fontsize=9, parse_math=False)
