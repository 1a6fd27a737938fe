"""The protocols by the names they have in `evaluation.metrics`."""

from __future__ import annotations

from contrex import settings
from contrex.errors import ArgumentError, unknown_name
from contrex.evaluation.classification import FGSM, Calibration, Top1, Top5
from contrex.evaluation.consistency import CGCLoss, Equivariance
from contrex.evaluation.contrasts import GradientSigns, RelativeProbabilityUnderMasking
from contrex.evaluation.curves import Deletion, Insertion
from contrex.evaluation.embedding import EmbeddingOfViews
from contrex.evaluation.faithfulness import DropIncrease, InfidelityToNoise, Sensitivity
from contrex.evaluation.localisation import ContentHeatmapOfLabel, Pointing, StochasticPointing
from contrex.evaluation.protocol import Protocol
from contrex.evaluation.randomization import ParameterRandomization
from contrex.explain.named import check_explainer
from contrex.ops.scores import CONTRASTS, TASKS

PROTOCOLS: dict[str, type[Protocol]] = {
    "top1": Top1,
    "top5": Top5,
    "calibration": Calibration,
    "fgsm": FGSM,
    "content_heatmap": ContentHeatmapOfLabel,
    "pointing_game": Pointing,
    "stochastic_pointing_game": StochasticPointing,
    "relative_probability": RelativeProbabilityUnderMasking,
    "gradient_sign": GradientSigns,
    "insertion_auc": Insertion,
    "deletion_auc": Deletion,
    "drop_increase": DropIncrease,
    "infidelity": InfidelityToNoise,
    "max_sensitivity": Sensitivity,
    "cgc_loss": CGCLoss,
    "equivariance": Equivariance,
    "parameter_randomization": ParameterRandomization,
    "embedding": EmbeddingOfViews,
}


def check_names(options: settings.Evaluation, num_classes: int | None = None, task: str | None = None) -> None:
    """Raise now rather than after hours of training.

    Raises:
        UnknownNameError: a metric, an explainer or its option, the contrast or the task does not exist.
        ArgumentError: a metric needs more than `num_classes` classes, or cannot judge classifiers of the `task`, where
            those are known; the options may name the task.
    """
    if options.task is not None and options.task not in TASKS:
        raise unknown_name("`task`", options.task, TASKS)
    for name in options.metrics:
        if name not in PROTOCOLS:
            raise unknown_name("`evaluation.metrics`", name, PROTOCOLS)
        needed = PROTOCOLS[name].min_classes
        if num_classes is not None and num_classes < needed:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which needs at least {needed} classes; "
                f"there are {num_classes}: leave it out."
            )
        reason = PROTOCOLS[name].unfit.get(task or options.task or "")
        if reason is not None:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which cannot judge a {task or options.task} classifier: {reason}. "
                "Leave it out."
            )
    for text in options.explainers or (options.explainer,):
        check_explainer(text, options.layer)
    if options.contrast is not None and options.contrast not in CONTRASTS:
        raise unknown_name("`contrast`", options.contrast, CONTRASTS)
