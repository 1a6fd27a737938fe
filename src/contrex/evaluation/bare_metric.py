"""A metric without a protocol, such as a user's from one file: it is shown every group of images as it is."""

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
    """Shows each group to one metric, whose `update` takes a `Group`."""

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
        return self.bench.shared_details() if self.needs_heatmaps else {}


_ABOUT = ("min_classes", "unfit", "needs_heatmaps", "needs_features", "needs_whole")
"""What a bare metric may say of itself as a protocol does, by attributes of the same names."""


def protocol_of(found: object, name: str) -> type[Protocol]:
    """The protocol for what `name` stands for: a `Protocol`, a `PerSampleMetric`, or a function of a `Group`.

    A metric is made without arguments, and its `update` takes a group. A function returns one value per image; its
    attributes `title`, `unit`, `higher_is_better` and `skip_reason`, where it has them, are those of the metric. What
    either needs of a group is said by the attributes that protocols have; without them it is the heatmaps.

    Raises:
        ArgumentError: it is none of these, or a protocol or a metric without a name.
    """
    if isinstance(found, type) and issubclass(found, Protocol):
        _check_named(found, name)
        return found
    if isinstance(found, type) and issubclass(found, PerSampleMetric):
        _check_named(found, name)
        return _around(found, found)
    if callable(found) and not isinstance(found, type):
        return _around(found, _metric_of(found))
    raise ArgumentError(
        f"`evaluation.metrics` {name!r} must be a contrex.evaluation.Protocol, a contrex.metrics.PerSampleMetric or a "
        f"function of a group of images, got {found!r}."
    )


def _check_named(found: object, name: str) -> None:
    missing = [word for word in ("name", "title") if not isinstance(getattr(found, word, None), str)]
    if missing:
        raise ArgumentError(f"`evaluation.metrics` {name!r} must have a {missing[0]!r}: give the class one, as a text.")


def _around(found: Any, metric: Any) -> type[Protocol]:
    about = {word: getattr(found, word) for word in _ABOUT if hasattr(found, word)}
    words = {"__doc__": metric.__doc__, "name": metric.name, "title": metric.title}
    return type(found.__name__, (BareMetric,), {**about, **words, "metric": metric})


def _metric_of(function: Any) -> type[PerSampleMetric]:
    """A metric that keeps what a function gives."""

    class OfFunction(PerSampleMetric):
        __doc__ = function.__doc__
        name = function.__name__
        title = getattr(function, "title", name.replace("_", " ").capitalize())
        unit = getattr(function, "unit", "")
        higher_is_better = getattr(function, "higher_is_better", None)
        skip_reason = getattr(function, "skip_reason", "no value")

        def update(self, group: Group) -> None:
            """Keep the function's values of a group."""
            self.append(torch.as_tensor(function(group)))

    return OfFunction
