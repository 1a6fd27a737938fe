"""
Training with CGC
=================

A recipe is a whole run, as a value: data, network, method, optimiser. Any field can be another one, and one call trains
it. A run that is there already is continued, or, as here, found to be finished.
"""

from dataclasses import replace

from matplotlib import pyplot as plt
from rich.console import Console
from trained import run_folder

from contrex.recipes import recipe_named
from contrex.training import curves, train

recipe = recipe_named("digits_cgc")
print(recipe.method)
assert train(recipe, run_folder("digits_cgc"), resume=True, console=Console(quiet=True))

# %%
# Another weight of the heatmaps' loss is another recipe:
heavier = replace(recipe, name="digits_cgc_heavier", method=replace(recipe.method, weight=1.0))
print(heavier.method.weight)

# %%
# What the log says, beside the network that was trained with cross-entropy alone.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
for name in ("digits_cross_entropy", "digits_cgc"):
    found = curves(run_folder(name))
    axes[0].plot(*zip(*found["val_top1"], strict=True), label=name)
    if "consistency" in found:
        axes[1].plot(*zip(*found["consistency"], strict=True), color="C1", label="consistency of the heatmaps")
for axis, label in zip(axes, ("validation top-1 %", "CGC loss"), strict=True):
    axis.set_xlabel("epoch")
    axis.set_ylabel(label)
axes[0].legend(frameon=False, fontsize=8)
figure.tight_layout()
