"""cgc_loss against the straightforward route - upsample, crop, resize, flip, cosine - at N = 64, 7 x 7 maps, S = 224.

Forward and backward. Goal: at least 50 times faster. The straightforward route is the one of the published code (a loop
over crops), written here as one would write it, without its bookkeeping.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from measuring import compare, save
from torch import Tensor

from contrex.losses import cgc_loss
from contrex.ops.geometry import Crop, random_crop

NUM, CELLS, SIDE, TEMPERATURE = 64, 7, 224, 0.5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def straightforward(heatmaps: Tensor, heatmaps_view: Tensor, crop: Crop) -> Tensor:
    """The paper's equation on S x S maps."""
    large, large_view = (
        F.interpolate(maps.relu()[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
        for maps in (heatmaps, heatmaps_view)
    )
    large, large_view = (m / (m.sum((1, 2, 3), keepdim=True) + 1e-8) + 1e-8 for m in (large, large_view))
    moved = []
    for index in range(NUM):
        top, left, height, width = (int(v[index]) for v in (crop.top, crop.left, crop.height, crop.width))
        cut = large[index : index + 1, :, top : top + height, left : left + width]
        view = F.interpolate(cut, (SIDE, SIDE), mode="bilinear", align_corners=False)
        moved.append(view.flip(3) if crop.flip[index] else view)
    query, key = (F.normalize(m.flatten(1), dim=1) for m in (torch.cat(moved), large_view))
    return F.cross_entropy(query @ key.T / TEMPERATURE, torch.arange(NUM, device=query.device))


def main() -> None:
    """Measure both on the same maps and check that they agree."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heatmaps, heatmaps_view = (torch.randn(NUM, CELLS, CELLS, device=DEVICE, requires_grad=True) for _ in range(2))
    generator = np.random.default_rng(0)
    crop = random_crop(NUM, SIDE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, generator=generator)
    losses = {
        "straightforward": lambda: straightforward(heatmaps, heatmaps_view, crop),
        "contrex": lambda: cgc_loss(heatmaps, heatmaps_view, crop, size=SIDE),
    }
    difference = abs(losses["straightforward"]() - losses["contrex"]()).item()
    medians = compare({n: lambda f=f: f().backward() for n, f in losses.items()}, device=DEVICE, rounds=5)
    save(
        "consistency_loss",
        {
            "unit": "seconds, forward and backward",
            "goal": "speed-up >= 50",
            **medians,
            "speed_up": round(medians["straightforward"] / medians["contrex"], 1),
            "difference_of_the_losses": difference,
        },
    )


if __name__ == "__main__":
    main()
