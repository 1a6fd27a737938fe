"""
Does the heatmap depend on the network?
=======================================

The layers are re-initialised one by one, from the top down. A heatmap that stays as it was explains the picture, not
the network.
"""

from matplotlib import pyplot as plt
from trained import SEVEN_AND_THREE, classifier

import contrex
from contrex.metrics import map_similarity, randomized

seen = classifier()
names = ("grad_cam", "gradient", "guided_backprop")
view = {"size": seen.image_size, "mean": seen.mean, "std": seen.std, "names": seen.names}


def heatmap(network, name):
    why = contrex.why(SEVEN_AND_THREE, network, explainer=name, target="7", **view)
    return why.resize(64).heatmap


before = {name: heatmap(seen.network, name) for name in names}
after = {name: [1.0] for name in names}
layers = ["trained"]
for layer, network in randomized(seen.network):
    layers.append(layer)
    for name in names:
        after[name].append(map_similarity(before[name], heatmap(network, name)).item())

figure, axis = plt.subplots(figsize=(8, 3.6))
for name, values in after.items():
    axis.plot(values, marker="o", markersize=3, label=name)
axis.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
axis.set_ylabel("rank correlation with the trained network's")
axis.axhline(0, color="0.8", linewidth=0.8)
axis.legend(frameon=False, fontsize=8)
figure.tight_layout()
