"""Insertion and deletion: the probability of the predicted class while the most salient pixels come back, or go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from contrex import ranks
from contrex.data.views.squares import view_sizes
from contrex.evaluation.asking import answers_about
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
    """Measure the area under a curve over the share of changed pixels."""

    needs_heatmaps = True
    curve: ClassVar[str]
    """The title of the curve's drawing."""
    curves_of: ClassVar[Callable[..., Tensor]]
    """The function that gives the curve of each image, `[N,S+1]`."""
    area_kind: ClassVar[type[CurveArea]]
    """The metric; its name has the baseline in it where that is not the usual one."""
    usual_baseline: ClassVar[str]

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.step = bench.options.insertion_step or 8 * view_sizes(bench.subject.data)[1]
        named = None if self.baseline == self.usual_baseline else self.baseline
        self.area = self.placed(self.area_kind(named), {"baseline": self.baseline})
        self.metrics = [self.area]
        self.mean = CurveMean()
        self._fractions: Tensor | None = None

    def judge(self, group: Group) -> Sequence[int]:
        self._fractions = curve_fractions(group.saliency[0].numel(), self.step)
        seeds = self.bench.seeds("imputation", group.indices)
        given = {"step": self.step, "baseline": self.baseline, "seeds": seeds}
        curves = type(self).curves_of(answers_about(group), group.saliency, **given)
        self.area.update(curves, self._fractions)
        self.mean.update(curves)
        return group.indices

    def profiles(self) -> Sequence[Profile]:
        own = [] if self._fractions is None else (100 * self._fractions).tolist()
        x = next((places for places in ranks.gathered(own) if places), [])  # a process may have no images
        points = {"": self.bench.points(self.mean, x)}
        return [Profile(self.area.name, self.curve, "pixels changed, %", "probability", points)]

    def details(self) -> dict[str, Any]:
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted",
            "scored_class": "predicted",
            "ranking": "signed map",
            "step": self.step,
            "baseline": self.baseline,
        }

    @property
    @abstractmethod
    def baseline(self) -> str:
        """The name of what removed pixels become, such as "blur"."""


class Insertion(PixelCurve):
    """Insertion AUC: the predicted class's probability while the most salient pixels come back."""

    name = "insertion_auc"
    title = "Insertion AUC"
    curve = "Insertion"
    curves_of = staticmethod(insertion_curve)
    area_kind = InsertionAUC
    usual_baseline = "blur"

    @property
    def baseline(self) -> str:
        """`evaluation.insertion_baseline`."""
        return self.bench.options.insertion_baseline

    def meaning(self) -> str:
        start = {
            "blur": "a blurred image",
            "reflected_blur": "a blurred image",
            "zero": "an empty image of the data set's mean colour",
            "mean": "an empty image of its own mean colour",
            "road": "an image imputed from what is left, with noise (ROAD)",
        }[self.baseline]
        return (
            f"The mean probability while pixels return to {start}, most important first: high when the heatmap found "
            "what the network needs."
        )


class Deletion(PixelCurve):
    """Deletion AUC: the predicted class's probability while the most salient pixels go."""

    name = "deletion_auc"
    title = "Deletion AUC"
    curve = "Deletion"
    curves_of = staticmethod(deletion_curve)
    area_kind = DeletionAUC
    usual_baseline = "zero"

    @property
    def baseline(self) -> str:
        """`evaluation.deletion_baseline`."""
        return self.bench.options.deletion_baseline

    def meaning(self) -> str:
        how = {
            "blur": "blurred away",
            "reflected_blur": "blurred away",
            "zero": "removed",
            "mean": "replaced by the image's mean colour",
            "road": "replaced by what the others suggest, with noise (ROAD)",
        }[self.baseline]
        return (
            f"The mean probability while pixels are {how}, most important first: low when the heatmap found what the "
            "network uses."
        )
