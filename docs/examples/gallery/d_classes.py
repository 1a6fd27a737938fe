"""
Several classes, from one forward pass
======================================

The maps of the most probable classes, and every contrast among them, come from one pass.
"""

import numpy as np
import torch
from PIL import Image
from trained import SEVEN_AND_THREE, classifier

import contrex

seen = classifier()
picture = np.array(Image.open(SEVEN_AND_THREE).convert("RGB"))
images = torch.from_numpy(picture).permute(2, 0, 1)[None]
explainer = contrex.GradCAM(seen)
explainer.classes(seen.normalise(images), k=3).on(images)

# %%
# Each against all others: what the classes share is gone.
explainer.classes(seen.normalise(images), k=3, contrast="weighted").on(images)

# %%
# Two of them against each other, from the maps that are there. The other way round it is the negative.
both = explainer.classes(seen.normalise(images), k=2).on(images)
print(torch.equal(both.pair(0, 1).heatmap, -both.pair(1, 0).heatmap))
both.pair(0, 1)
