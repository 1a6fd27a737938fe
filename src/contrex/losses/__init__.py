"""Losses on explanations: functions of tensors, never of a model.

`cgc_loss` and `l2_consistency_loss` compare the transformed heatmap of an image with the heatmap of the transformed
image; one file per family.
"""

from contrex.losses.consistency import cgc_loss, cgc_losses, l2_consistency_loss

__all__ = ["cgc_loss", "cgc_losses", "l2_consistency_loss"]
