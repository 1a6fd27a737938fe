"""
Heatmaps that move with the picture
===================================

CGC trains a network so that the heatmap of a cropped picture is the crop of the heatmap. Beside it the same network
without that loss, at the same accuracy.
"""

from matplotlib import pyplot as plt
from PIL import ImageChops
from trained import classifier, unseen

import contrex
from contrex.metrics import content_heatmap

pictures = [unseen()[index] for index in (3, 8, 11)]
networks = {
    "cross-entropy": classifier("digits_cross_entropy"),
    "CGC": classifier("digits_cgc"),
}

figure, axes = plt.subplots(len(networks), len(pictures), figsize=(8, 5.6))
for row, (name, seen) in zip(axes, networks.items(), strict=True):
    for axis, sample in zip(row, pictures, strict=True):
        why = contrex.why(sample.image, seen, target=sample.label)
        (inside,) = content_heatmap(why.heatmap, [sample.mask], [sample.mask.shape])
        axis.imshow(why.overlay().resize((256, 256)))
        axis.set_title(f"{name}, {inside:.0f} % on the {sample.label}", fontsize=9)
        axis.set_axis_off()
figure.tight_layout()

# %%
# The same picture, moved by 8 pixels to the right and down, for both networks: the heatmap of the second one goes
# along.
sample = pictures[0]
moved = ImageChops.offset(sample.image, 8, 8)
figure, axes = plt.subplots(2, 2, figsize=(5.4, 5.6))
for row, (name, seen) in zip(axes, networks.items(), strict=True):
    for axis, picture in zip(row, (sample.image, moved), strict=True):
        why = contrex.why(picture, seen, target=sample.label)
        axis.imshow(why.overlay().resize((256, 256)))
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
figure.tight_layout()
