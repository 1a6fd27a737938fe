"""Draws `same_area.png`: the pixels that two heatmaps keep under each protocol of `contrex.metrics.masking`."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import TwoSlopeNorm
from torch import Tensor

from contrex.metrics.masking import PROTOCOLS, SIGNS, kept_pixels

SIZE = 64


def bump(row: float, column: float, width: float) -> Tensor:
    """A Gaussian bump `[SIZE,SIZE]`; positions and width in 0..1."""
    places = (torch.arange(SIZE) + 0.5) / SIZE
    squares = (places[:, None] - row) ** 2 + (places - column) ** 2
    return torch.exp(-squares / (2 * width**2))


def main() -> None:
    """An ordinary map, positive nearly everywhere, and a contrastive one with evidence for and against the class."""
    ordinary = bump(0.45, 0.5, 0.3) - 0.45 * bump(0.95, 0.1, 0.16)
    contrastive = bump(0.35, 0.35, 0.14) - bump(0.6, 0.68, 0.17)
    rows = {"ordinary map": (ordinary, contrastive), "contrastive map": (contrastive, ordinary)}
    columns = list(itertools.product(SIGNS, PROTOCOLS))
    figure, axes = plt.subplots(2, 1 + len(columns), figsize=(12.5, 4.3), layout="constrained")
    colours = plt.get_cmap("RdBu_r").copy()
    colours.set_bad("0.82")
    for line, (label, (heatmap, other)) in zip(axes, rows.items(), strict=True):
        norm = TwoSlopeNorm(0, -float(heatmap.abs().max()), float(heatmap.abs().max()))
        pictures = [torch.ones_like(heatmap, dtype=torch.bool)]
        pictures += [kept_pixels(heatmap[None], other[None], sign=s, protocol=p)[0] for s, p in columns]
        for axis, kept in zip(line, pictures, strict=True):
            axis.imshow(heatmap.where(kept, torch.nan).numpy(), cmap=colours, norm=norm)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{100 * kept.float().mean():.0f} %")
        line[0].set_ylabel(label)
        line[0].set_xlabel("")
    for axis, (sign, protocol) in zip(axes[0, 1:], columns, strict=True):
        axis.set_title(f"{sign}\n{protocol}", fontsize=10)
    axes[0, 0].set_title("heatmap", fontsize=10)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)


if __name__ == "__main__":
    main()
