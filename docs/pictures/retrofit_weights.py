"""Draws `retrofit_weights.png` from benchmarks/results/photographs.json: what retrofits gain, by the weight of the
consistency loss against that of the divergence."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
RATIOS = {"0.25-kl-10": 0.025, "1-kl-10": 0.1, "1-kl-4": 0.25, "4-kl-10": 0.4}
SHOWN = {
    "content_heatmap": ("content heatmap, points", "tab:blue"),
    "content_heatmap_at_spread_25": ("the same at equal spread, points", "tab:orange"),
    "pointing_game_15": ("pointing game, points", "tab:green"),
    "top1": ("top-1, points", "black"),
}
CURVES = {
    "insertion_auc": ("insertion AUC", "tab:red"),
    "deletion_auc": ("deletion AUC (lower is better)", "tab:purple"),
}


def main() -> None:
    """Draw two panels over the ratio of the weights: points of per cent, and the areas under the curves."""
    figures = json.loads((ROOT / "benchmarks/results/photographs.json").read_text())["figures"]
    found = {
        ratio: figures[f"mobilenet-weight-{name}/after-imagenet_val_500"]["differences"]
        for name, ratio in RATIOS.items()
    }
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    for panel, shown in zip(panels, (SHOWN, CURVES), strict=True):
        for number, (metric, (label, colour)) in enumerate(shown.items()):
            points = [(ratio * (1 + 0.03 * number), *one[metric]) for ratio, one in found.items() if metric in one]
            x, mean, low, high = zip(*points, strict=True)
            bars = [[m - lo for m, lo in zip(mean, low, strict=True)], [h - m for m, h in zip(mean, high, strict=True)]]
            panel.errorbar(x, mean, bars, marker="o", capsize=3, color=colour, label=label)
        panel.axhline(0, color="0.6", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xticks(list(RATIOS.values()), [f"{ratio:g}" for ratio in RATIOS.values()], minor=False)
        panel.minorticks_off()
        panel.set_xlabel("weight of the consistency / weight of the divergence")
        panel.set_ylabel("after - before, 500 photos, 95 % interval")
        panel.legend(frameon=False, fontsize=9)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
