"""
One picture, many methods
=========================

All explainers take the same call, so a row of them is a loop. They answer different questions, at a different cost:
"Choosing a method" says which for what.
"""

from matplotlib import pyplot as plt
from trained import SEVEN_AND_THREE, classifier

import contrex
from contrex.metrics import map_similarity

seen = classifier()
at_layer = ["grad_cam", "layer_cam", "eigen_cam", "lrp"]
at_pixels = ["gradient", "integrated_gradients", "occlusion", "rise(num_masks=2000)"]
found = {name: contrex.why(SEVEN_AND_THREE, seen, explainer=name, target="7") for name in at_layer + at_pixels}

figure, axes = plt.subplots(2, 4, figsize=(10, 5.4))
for axis, (name, why) in zip(axes.flat, found.items(), strict=True):
    axis.imshow(why.overlay().resize((256, 256)))
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()
figure.tight_layout()

# %%
# How alike are they? The rank correlation of the maps with Grad-CAM's, all enlarged to the picture.
first = found["grad_cam"].resize(64).heatmap
for name, why in found.items():
    print(f"{name:24} {map_similarity(first, why.resize(64).heatmap).item():5.2f}")

# %%
# A contrast goes with any of them. For a method that is not linear in the score, such as LayerCAM, it is the difference
# of two maps; the call is the same.
contrex.why(SEVEN_AND_THREE, seen, explainer="layer_cam", target="7", contrast="3")
