"""The protocols by the names they have in `evaluation.metrics`, and those from outside of contrex."""

from __future__ import annotations

from contrex import settings
from contrex.errors import ArgumentError, unknown_name
from contrex.evaluation import (
    classification,
    consistency,
    contrasts,
    curves,
    embedding,
    faithfulness,
    localisation,
    randomization,
)
from contrex.evaluation.bare_metric import protocol_of
from contrex.evaluation.protocol import Protocol
from contrex.explain.named import check_explainer
from contrex.ops.scores import CONTRASTS, TASKS
from contrex.outside import find, installed, outside

_MODULES = (
    classification,
    localisation,
    contrasts,
    curves,
    faithfulness,
    consistency,
    randomization,
    embedding,
)
"""Those that `contrex metrics` lists first come first."""

PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, Protocol)
    and kind.__module__ == module.__name__
    and hasattr(kind, "name")
}
"""Every protocol of the package that has a name, in the order of their modules and in these."""


def protocol_named(name: str) -> type[Protocol]:
    """The protocol that an entry of `evaluation.metrics` names.

    That is one of contrex, one that an installed package adds (entry points `contrex.protocols`, or a metric of
    `contrex.metrics`), or `FILE.py:NAME`, `MODULE:NAME`: a `Protocol`, or a metric without one, see `protocol_of`.

    Raises:
        UnknownNameError: there is nothing of that name.
        ArgumentError: it cannot be loaded, or is neither.
    """
    what = "`evaluation.metrics`"
    found = find(name, what, {**installed("metrics"), **PROTOCOLS}, "protocols")
    return protocol_of(outside(found, what) if isinstance(found, str) else found, name)


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
        protocol = protocol_named(name)
        if num_classes is not None and num_classes < protocol.min_classes:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which needs at least {protocol.min_classes} classes; "
                f"there are {num_classes}: leave it out."
            )
        reason = protocol.unfit.get(task or options.task or "")
        if reason is not None:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which cannot judge a {task or options.task} classifier: {reason}. "
                "Leave it out."
            )
    for text in options.explainers or (options.explainer,):
        check_explainer(text, options.layer)
    if options.contrast is not None and options.contrast not in CONTRASTS:
        raise unknown_name("`contrast`", options.contrast, CONTRASTS)
