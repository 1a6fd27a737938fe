"""What one name in `evaluation.metrics` stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from contrex.evaluation.bench import Bench, Group
from contrex.metrics import PerSampleMetric
from contrex.records import Profile, Scatter


class Protocol:
    """Shows groups of images to one metric or a few, and says what it chose in doing so.

    A subclass sets `metrics` in `__init__` and writes `judge`, which updates each of them with one value per image.
    What a group offers, see `Group`; several protocols share it.
    """

    min_classes: ClassVar[int] = 1
    """How many classes a classifier must have for the numbers to mean something."""
    unfit: ClassVar[Mapping[str, str]] = {}
    """The tasks (`evaluation.task`) whose classifiers it cannot judge, each with the reason."""
    needs_heatmaps: ClassVar[bool] = False
    """Whether it uses the explanation of the squares."""
    needs_features: ClassVar[bool] = False
    """Whether it uses the features of the squares."""
    needs_whole: ClassVar[bool] = False
    """Whether it uses the whole images."""
    judges_classifier_only: ClassVar[bool] = False
    """Whether it uses nothing of the explainer: for several explainers it is measured once."""

    metrics: Sequence[PerSampleMetric] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def judge(self, group: Group) -> Sequence[int]:
        """Update each metric with one value per image; the images' indices in the order of those values."""
        raise NotImplementedError

    def details(self) -> dict[str, Any]:
        """The choices behind the numbers that another protocol could make differently."""
        return {}

    def profiles(self) -> Sequence[Profile]:
        """Curves that belong to the numbers, averaged over the images; with several processes all must call it."""
        return ()

    def scatters(self) -> Sequence[Scatter]:
        """Points in a plane for a person to look at; with several processes all must call it."""
        return ()
