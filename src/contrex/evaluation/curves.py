"""Insertion and deletion: the probability of the predicted class while the most salient pixels come, or go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from contrex import ranks
from contrex.data.views.squares import view_sizes
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import (
    CurveArea,
    CurveMean,
    DeletionAUC,
    InsertionAUC,
    curve_fractions,
    deletion_curve,
    insertion_curve,
)
from contrex.records import Profile


class PixelCurve(Protocol):
    """A curve over the share of changed pixels, and the area under it."""

    needs_heatmaps = True
    title: ClassVar[str]

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.step = bench.options.insertion_step or 8 * view_sizes(bench.subject.data)[1]
        self.area = self._area()
        self.metrics = [self.area]
        self.mean = CurveMean()
        self._fractions: Tensor | None = None

    def judge(self, group: Group) -> Sequence[int]:
        self._fractions = curve_fractions(group.saliency[0].numel(), self.step)
        curves = self._curves(group)
        self.area.update(curves, self._fractions)
        self.mean.update(curves)
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        options = self.bench.options
        own = [] if self._fractions is None else (100 * self._fractions).tolist()
        x = next((places for places in ranks.gathered(own) if places), [])  # a process may have no images
        points = self.mean.points(x, num_bootstrap=options.num_bootstrap, seed=options.seed)
        return [Profile(self.area.name, self.title, "pixels changed, %", "probability", {"": points})]

    def details(self) -> dict[str, Any]:
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted",
            "scored_class": "predicted",
            "ranking": "signed map",
            "step": self.step,
            "baseline": self._baseline(),
        }

    def _area(self) -> CurveArea:
        raise NotImplementedError

    def _curves(self, group: Group) -> Tensor:
        raise NotImplementedError

    def _baseline(self) -> str:
        raise NotImplementedError


class Insertion(PixelCurve):
    """Insertion AUC: the predicted class's probability while the most salient pixels come back."""

    title = "Insertion"

    def _area(self) -> CurveArea:
        return InsertionAUC(None if self._baseline() == "blur" else self._baseline())

    def _curves(self, group: Group) -> Tensor:
        bench = self.bench
        return insertion_curve(
            bench.network,
            group.squares,
            group.saliency,
            step=self.step,
            baseline=self._baseline(),
            logits=group.logits,
            batch_size=bench.chunk,
            seeds=bench.seeds("imputation", group.indices),
            task=bench.options.task,
        )

    def _baseline(self) -> str:
        return self.bench.options.insertion_baseline


class Deletion(PixelCurve):
    """Deletion AUC: the predicted class's probability while the most salient pixels go."""

    title = "Deletion"

    def _area(self) -> CurveArea:
        return DeletionAUC(None if self._baseline() == "zero" else self._baseline())

    def _curves(self, group: Group) -> Tensor:
        bench = self.bench
        return deletion_curve(
            bench.network,
            group.squares,
            group.saliency,
            step=self.step,
            baseline=self._baseline(),
            logits=group.logits,
            batch_size=bench.chunk,
            seeds=bench.seeds("imputation", group.indices),
            task=bench.options.task,
        )

    def _baseline(self) -> str:
        return self.bench.options.deletion_baseline
