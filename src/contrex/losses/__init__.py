"""Losses on explanations and embeddings: functions of tensors, never of a model.

`cgc_loss` and `l2_consistency_loss` compare the transformed heatmap of an image with the heatmap of the transformed
image, `gcc_loss` the heatmap of a composite with that of the image in it, `supcon_loss` the embeddings of an image's
views with those of its class, `distillation_loss` two networks' logits, `binary_cross_entropy` logits with their
targets, class by class, `energy_losses` heatmaps with boxes; one file per family.
"""

from contrex.losses.binary import binary_cross_entropy
from contrex.losses.composite import gcc_loss
from contrex.losses.consistency import cgc_loss, cgc_losses, l2_consistency_loss
from contrex.losses.distillation import distillation_loss
from contrex.losses.energy import energy_losses
from contrex.losses.supcon import supcon_loss

__all__ = [
    "binary_cross_entropy",
    "cgc_loss",
    "cgc_losses",
    "distillation_loss",
    "energy_losses",
    "gcc_loss",
    "l2_consistency_loss",
    "supcon_loss",
]
