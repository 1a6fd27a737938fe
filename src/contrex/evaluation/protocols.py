"""The protocols by their names in `evaluation.metrics`, and those from outside of contrex."""

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
    grid_pointing,
    human_alignment,
    localisation,
    randomization,
    repeatability,
)
from contrex.evaluation.bare_metric import protocol_of
from contrex.evaluation.protocol import Protocol
from contrex.explain.named import check_explainer
from contrex.ops.scores import TASKS
from contrex.outside import find, installed, outside
from contrex.settings.contrast import check_contrast

_MODULES = (
    classification,
    localisation,
    grid_pointing,
    human_alignment,
    contrasts,
    curves,
    faithfulness,
    consistency,
    randomization,
    repeatability,
    embedding,
)
"""In the order in which `contrex metrics` lists their protocols."""

PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, Protocol)
    and kind.__module__ == module.__name__
    and hasattr(kind, "name")
}
"""Every protocol of the package that has a name, in the order of the modules and of the classes in them."""


def protocol_named(name: str) -> type[Protocol]:
    """The protocol that an entry of `evaluation.metrics` names.

    `name` is one of contrex's own, one that an installed package adds (entry points `contrex.protocols`, or
    `contrex.metrics` for a metric), or `FILE.py:NAME` or `MODULE:NAME` of a `Protocol` or of a metric without one
    (see `protocol_of`).

    Raises:
        UnknownNameError: nothing has that name.
        ArgumentError: it cannot be loaded, or it is neither a protocol nor a metric.
    """
    what = "`evaluation.metrics`"
    named = find(name, what, {**installed("metrics"), **PROTOCOLS}, "protocols")
    return protocol_of(outside(named, what) if isinstance(named, str) else named, name)


def check_names(options: settings.Evaluation, num_classes: int | None = None, task: str | None = None) -> None:
    """Check every name in `options`, to fail now rather than after hours of training.

    Raises:
        UnknownNameError: a metric, an explainer or its option, the contrast or the task does not exist.
        ArgumentError: a metric needs more than `num_classes` classes, or cannot judge classifiers of the `task`, where
            those are known; the options may name the task.
    """
    if options.task is not None and options.task not in TASKS:
        raise unknown_name("`task`", options.task, TASKS)
    for name in options.metrics:
        protocol = protocol_named(name)
        protocol.check_options(options)
        if num_classes is not None:
            protocol.check_classes(name, options, num_classes)
        reason = protocol.unfit.get(task or options.task or "")
        if reason is not None:
            raise ArgumentError(
                f"`evaluation.metrics` has {name}, which cannot judge a {task or options.task} classifier: {reason}. "
                "Leave it out."
            )
    if options.others and set(options.metrics) <= PROTOCOLS.keys() - {"repeatability"}:  # one's own may read them
        raise ArgumentError(
            f"`evaluation.others` {' '.join(options.others)}: none of `evaluation.metrics` compares maps with those of "
            "other networks. Add repeatability, or leave them out (--others alone)."
        )
    for text in options.explainers or (options.explainer,):
        check_explainer(text, options.layer)
    check_contrast(options.contrast, "`contrast`")
