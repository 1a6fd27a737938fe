"""The protocols by the names they have in `evaluation.metrics`."""

from __future__ import annotations

from contrex import settings
from contrex.errors import ArgumentError, unknown_name
from contrex.evaluation.classification import Top1, Top5
from contrex.evaluation.consistency import CGCLoss
from contrex.evaluation.curves import Deletion, Insertion
from contrex.evaluation.localisation import ContentHeatmapOfLabel
from contrex.evaluation.protocol import Protocol
from contrex.explain.named import explainer_class
from contrex.ops.scores import CONTRASTS

PROTOCOLS: dict[str, type[Protocol]] = {
    "top1": Top1,
    "top5": Top5,
    "content_heatmap": ContentHeatmapOfLabel,
    "cgc_loss": CGCLoss,
    "insertion_auc": Insertion,
    "deletion_auc": Deletion,
}


def check_names(options: settings.Evaluation, num_classes: int | None = None) -> None:
    """Raise now rather than after hours of training.

    Raises:
        UnknownNameError: a metric, the explainer or the contrast does not exist.
        ArgumentError: a metric needs more than `num_classes` classes, where that is known.
    """
    for name in options.metrics:
        if name not in PROTOCOLS:
            raise unknown_name("`evaluation.metrics`", name, PROTOCOLS)
        needed = PROTOCOLS[name].min_classes
        if num_classes is not None and num_classes < needed:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which needs at least {needed} classes; "
                f"there are {num_classes}: leave it out."
            )
    explainer_class(options.explainer)
    if options.contrast is not None and options.contrast not in CONTRASTS:
        raise unknown_name("`contrast`", options.contrast, CONTRASTS)
