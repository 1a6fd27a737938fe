"""
Measuring two networks
======================

Every number comes with its interval, and with how many images were counted. Beside each other, the networks differ in
accuracy by little and in their heatmaps by much, and not always to the better: insertion falls.
"""

from matplotlib import pyplot as plt
from rich.console import Console
from trained import run_folder

from contrex.experiment import evaluate_run
from contrex.settings import Evaluation

metrics = ("top1", "content_heatmap", "cgc_loss", "insertion_auc")
asked = Evaluation(metrics=metrics, split="test", limit=200, device="cpu")
quiet = Console(quiet=True)
names = ("digits_cross_entropy", "digits_cgc")
found = {name: evaluate_run(run_folder(name), asked, console=quiet)[0].record for name in names}

for name, record in found.items():
    print(name)
    for metric in record.metrics:
        interval = f"[{metric.low:.3f}, {metric.high:.3f}]"
        print(f"  {metric.name:16} {metric.value:7.3f}  {interval:16}  {metric.num_counted} images")

# %%
# The same as a picture; ``contrex report`` makes a page of it, with pictures of the heatmaps.
shown = found[names[0]].metrics
figure, axes = plt.subplots(1, len(shown), figsize=(10, 2.8))
for number, (axis, metric) in enumerate(zip(axes, shown, strict=True)):
    for place, record in enumerate(found.values()):
        one = record.metrics[number]
        below, above = one.value - one.low, one.high - one.value
        axis.errorbar(place, one.value, yerr=[[below], [above]], fmt="o", capsize=4)
    axis.set_title(metric.name, fontsize=9)
    axis.set_xticks([0, 1], ["CE", "CGC"])
    axis.set_xlim(-0.5, 1.5)
figure.tight_layout()
