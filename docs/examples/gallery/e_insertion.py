"""
Does the network need those pixels?
===================================

A heatmap may look right and rank the wrong pixels first. Insertion puts the pixels back, the most salient first, and
watches the probability come back; deletion takes them away.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt
from trained import classifier, unseen

import contrex
from contrex.metrics import Answers, area_under_curve, deletion_curve, insertion_curve

seen = classifier()
samples = [unseen()[index] for index in range(32)]
pictures = [one.image for one in samples]
names = ("grad_cam", "gradient", "eigen_cam")
explained = {name: contrex.why(pictures, seen, explainer=name) for name in names}
pixels = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in pictures])
target = explained["grad_cam"].target
answers = Answers(seen.network, seen.normalise(pixels), target=target)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for axis, curve, title in zip(axes, (insertion_curve, deletion_curve), ("insertion", "deletion"), strict=True):
    for name, why in explained.items():
        curves = curve(answers, why.resize(64).heatmap, step=128)
        share = torch.linspace(0, 1, curves.shape[1])
        axis.plot(share, curves.mean(0), label=f"{name}, area {area_under_curve(curves).mean():.2f}")
    axis.set_title(title)
    axis.set_xlabel("share of the pixels")
    axis.legend(frameon=False, fontsize=8)
axes[0].set_ylabel("probability of the class")
figure.tight_layout()
