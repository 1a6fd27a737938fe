"""
One picture, many methods
=========================

All explainers take the same call, so a row of them is a loop. They answer different questions, at a different cost:
"Choosing a method" says which for what.
"""

import contrex
import torch
from matplotlib import pyplot as plt
from trained import SEVEN_AND_THREE, classifier

seen = classifier()
names = ["grad_cam", "layer_cam", "eigen_cam", "gradient", "integrated_gradients", "lrp", "occlusion", "rise(num_masks=2000)"]
found = {name: contrex.why(SEVEN_AND_THREE, seen, explainer=name, target="7") for name in names}

figure, axes = plt.subplots(2, 4, figsize=(10, 5.4))
for axis, (name, why) in zip(axes.flat, found.items(), strict=True):
    axis.imshow(why.overlay().resize((256, 256)))
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()
figure.tight_layout()

# %%
# How alike are they? The rank correlation of the maps with Grad-CAM's, all enlarged to the picture.
from contrex.metrics import map_similarity  # noqa: E402

first = found["grad_cam"].resize(64).heatmap
for name, why in found.items():
    print(f"{name:24} {map_similarity(first, why.resize(64).heatmap).item():5.2f}")

# %%
# Some methods have no contrast of their own and some are no differences of maps; the front door takes care of that.
rows = [contrex.why(SEVEN_AND_THREE, seen, explainer=name, target="7", contrast="3") for name in ("grad_cam", "layer_cam")]
assert all(torch.isfinite(why.heatmap).all() for why in rows)
rows[1]
