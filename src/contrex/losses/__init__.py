"""Losses on explanations and embeddings: functions of tensors, never of a model.

`cgc_loss` and `l2_consistency_loss` compare the transformed heatmap of an image with the heatmap of the transformed
image, `supcon_loss` the embeddings of its views with those of its class; one file per family.
"""

from contrex.losses.consistency import cgc_loss, cgc_losses, l2_consistency_loss
from contrex.losses.supcon import supcon_loss

__all__ = ["cgc_loss", "cgc_losses", "l2_consistency_loss", "supcon_loss"]
