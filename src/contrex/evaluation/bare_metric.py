"""Metrics without a protocol of their own, such as a user's from one file: each group is shown to them as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import PerSampleMetric

OfGroup = Callable[[Group], Tensor]
"""A metric as a function: from a group to one value per image, NaN where an image has none."""


class BareMetric(Protocol):
    """Show each group to one metric, whose `update` takes a `Group`."""

    needs_heatmaps = True
    metric: ClassVar[Callable[[], PerSampleMetric]]

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [type(self).metric()]

    def judge(self, group: Group) -> Sequence[int]:
        metric: Any = self.metrics[0]
        before = len(metric.own_values())
        metric.update(group)
        given = len(metric.own_values()) - before
        if given != len(group):
            raise ArgumentError(
                f"the metric {metric.name} gave {given} values for {len(group)} images: give one for each, in their "
                "order, and NaN for an image that has none."
            )
        return group.indices

    def details(self) -> dict[str, Any]:
        return self.bench.shared_details("wholes" if self.needs_whole else "squares") if self.needs_heatmaps else {}


_ABOUT = ("min_classes", "unfit", "needs_heatmaps", "needs_features", "needs_whole")
"""The attributes of a protocol that a bare metric may have too, with the same meaning."""


def protocol_of(thing: object, name: str) -> type[Protocol]:
    """The protocol that shows images to `thing`: a `Protocol` itself, a `PerSampleMetric`, or a function of a `Group`.

    A metric is made without arguments, and its `update` takes a group. A function returns one value per image; its
    attributes `title`, `unit`, `higher_is_better` and `skip_reason`, where it has them, become those of the metric. A
    metric or a function says what it needs of a group by the same attributes as a protocol; without them it gets
    heatmaps. `name` is what the user wrote, for the errors.

    Raises:
        ArgumentError: `thing` is none of these, or it is a protocol or a metric without a name or a title.
    """
    if isinstance(thing, type) and issubclass(thing, Protocol):
        _check_named(thing, name)
        return thing
    if isinstance(thing, type) and issubclass(thing, PerSampleMetric):
        _check_named(thing, name)
        return _around(thing, thing)
    if callable(thing) and not isinstance(thing, type):
        return _around(thing, _metric_of(thing))
    raise ArgumentError(
        f"`evaluation.metrics` {name!r} must be a contrex.evaluation.Protocol, a contrex.metrics.PerSampleMetric or a "
        f"function of a group of images, got {thing!r}."
    )


def _check_named(thing: object, name: str) -> None:
    missing = [word for word in ("name", "title") if not isinstance(getattr(thing, word, None), str)]
    if missing:
        raise ArgumentError(f"`evaluation.metrics` {name!r} must have a {missing[0]!r}: give the class one, as a text.")


def _around(thing: Any, metric: Any) -> type[Protocol]:
    about = {word: getattr(thing, word) for word in _ABOUT if hasattr(thing, word)}
    words = {"__doc__": metric.__doc__, "name": metric.name, "title": metric.title}
    return type(thing.__name__, (BareMetric,), {**about, **words, "metric": metric})


def _metric_of(function: Any) -> type[PerSampleMetric]:
    """A metric class whose values are those that `function` returns for each group."""

    class OfFunction(PerSampleMetric):
        __doc__ = function.__doc__
        name = function.__name__
        title = getattr(function, "title", name.replace("_", " ").capitalize())
        unit = getattr(function, "unit", "")
        higher_is_better = getattr(function, "higher_is_better", None)
        skip_reason = getattr(function, "skip_reason", "no value")

        def update(self, group: Group) -> None:
            """Add the function's values for the images of `group`."""
            self.append(torch.as_tensor(function(group)))

    return OfFunction
