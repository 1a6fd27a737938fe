"""
Several classes, from one forward pass
======================================

The maps of the most probable classes, and every contrast among them, come from one pass.
"""

import contrex
import numpy as np
import torch
from PIL import Image
from trained import SEVEN_AND_THREE, classifier

seen = classifier()
images = torch.from_numpy(np.array(Image.open(SEVEN_AND_THREE).convert("RGB"))).permute(2, 0, 1)[None]
explainer = contrex.GradCAM(seen)
explainer.classes(seen.normalise(images), k=3).on(images)

# %%
# Each against all others: what the classes share is gone.
explainer.classes(seen.normalise(images), k=3, contrast="weighted").on(images)

# %%
# Which cells are of use to one class only? The pair (7, 3), both ways, is one map and its negative.
both = explainer.classes(seen.normalise(images), k=2)
print(torch.equal(both.pair(0, 1).heatmap, -both.pair(1, 0).heatmap))
both.pair(0, 1).on(images)
