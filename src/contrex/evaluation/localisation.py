"""Protocols that ask whether the heatmap of the label lies on the object, given by boxes or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from contrex.data.views.evaluation import Whole
from contrex.evaluation.bench import Bench, Group, Wholes
from contrex.evaluation.protocol import Protocol
from contrex.metrics import ContentHeatmap, ContentHeatmapAtSpread, PointingGame, Region, StochasticPointingGame


class Localisation(Protocol):
    """Show whole images to one metric, with `evaluation.region` as the object.

    `evaluation.content_heatmap_protocol` says how large the whole images are.
    """

    needs_whole = True

    @property
    def _object(self) -> str:
        """The name of the region in a sentence."""
        return "object's box" if self.bench.options.region == "boxes" else "object's mask"

    @property
    def _or_near(self) -> str:
        tolerance = self.bench.options.pointing.tolerance
        return f", or less than {tolerance:g} pixels away from it" if tolerance else ""

    def judge(self, group: Group) -> Sequence[int]:
        for same in group.wholes:
            self._update(same, [self._region(one) for one in same.images], [one.image_size for one in same.images])
        return [views.index for same in group.wholes for views in same.views]

    def details(self) -> dict[str, Any]:
        options = self.bench.options
        view = {"view": options.content_heatmap_protocol, "region": options.region}
        return {**self.bench.shared_details("wholes"), "explained_class": "label", **view}

    def _region(self, whole: Whole) -> Region:
        if self.bench.options.region == "boxes":
            return whole.boxes
        return np.zeros(whole.image_size, np.bool_) if whole.mask is None else whole.mask

    def _update(self, same: Wholes, regions: Sequence[Region], sizes: Sequence[tuple[int, int]]) -> None:
        self.metrics[0].update(same.heatmaps, regions, sizes)


class ContentHeatmapOfLabel(Localisation):
    """Content heatmap: the share of the positive heatmap inside the object."""

    name = "content_heatmap"
    title = "Content heatmap"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [ContentHeatmap()]

    def meaning(self) -> str:
        return (
            f"How much of the positive heatmap lies inside the {self._object}, averaged over images: at 100 % the "
            "explanation looks at nothing but the object."
        )


class ContentHeatmapAtEqualSpread(Localisation):
    """Content heatmap of maps that are all as large: whether they are on the object, whatever their size."""

    name = "content_heatmap_at_spread"
    title = "Content heatmap at equal spread"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        share = bench.options.equal_spread
        self.metrics = [self.placed(ContentHeatmapAtSpread(share=share), {"spread": share})]

    def meaning(self) -> str:
        return (
            f"How much of the heatmap lies inside the {self._object} once a number is taken off its cells so that "
            f"it covers {100 * self.bench.options.equal_spread:g} % of them: a smaller map does not gain by its size."
        )


class Pointing(Localisation):
    """Pointing game: how often the heatmap's maximum is on the object."""

    name = "pointing_game"
    title = "Pointing game"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        tolerance = bench.options.pointing.tolerance
        self.metrics = [self.placed(PointingGame(tolerance=tolerance), {"tolerance": tolerance})]

    def meaning(self) -> str:
        return f"How often the heatmap's maximum lies inside the {self._object}{self._or_near}."


class StochasticPointing(Localisation):
    """Stochastic pointing game: how many points drawn from the heatmap are on the object."""

    name = "stochastic_pointing_game"
    title = "Stochastic pointing game"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        options = bench.options.pointing
        game = StochasticPointingGame(num_samples=options.num_samples, tolerance=options.tolerance)
        self.metrics = [self.placed(game, {"num_samples": options.num_samples, "tolerance": options.tolerance})]

    def meaning(self) -> str:
        return (
            f"How many of {self.bench.options.pointing.num_samples} points drawn from the positive heatmap, as if it "
            f"were a distribution, lie inside the {self._object}{self._or_near}."
        )

    def details(self) -> dict[str, Any]:
        return {**super().details(), "num_samples": self.bench.options.pointing.num_samples}

    def _update(self, same: Wholes, regions: Sequence[Region], sizes: Sequence[tuple[int, int]]) -> None:
        seeds = self.bench.seeds("pointing game", [views.index for views in same.views])
        self.metrics[0].update(same.heatmaps, regions, sizes, seeds)
