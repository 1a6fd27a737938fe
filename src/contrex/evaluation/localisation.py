"""Whether the heatmap of the label's class lies on the object: whole images, their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import ContentHeatmap


class ContentHeatmapOfLabel(Protocol):
    """The content heatmap, by `evaluation.content_heatmap_protocol`."""

    needs_whole = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metrics = [ContentHeatmap()]

    def judge(self, group: Group) -> Sequence[int]:
        order: list[int] = []
        for same in group.wholes:
            boxes, sizes = [views.boxes for views in same.views], [views.image_size for views in same.views]
            self.metrics[0].update(same.heatmaps, boxes, sizes)
            order += [views.index for views in same.views]
        return order

    def details(self) -> dict[str, Any]:
        view = self.bench.options.content_heatmap_protocol
        return {**self.bench.shared_details(), "explained_class": "label", "view": view}
