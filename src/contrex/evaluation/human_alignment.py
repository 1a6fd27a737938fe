"""The protocol that compares heatmaps with maps of what people found important, given as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from contrex import settings
from contrex.data.files.human_maps import HumanMaps
from contrex.data.views.evaluation import Views
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError
from contrex.evaluation.asking import label_saliency
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.chosen import chosen
from contrex.evaluation.protocol import Protocol
from contrex.metrics import HumanAlignment, human_alignment


class AlignmentWithPeople(Protocol):
    """Human alignment: whether the heatmap of the label ranks pixels as people did (ClickMe)."""

    name = "human_alignment"
    title = "Human alignment"
    needs_heatmaps = True

    @classmethod
    def check_options(cls, options: settings.Evaluation) -> None:
        """Refuse options without a folder of maps."""
        if options.human.path is None:
            raise ArgumentError(
                "`evaluation.metrics` has human_alignment, which needs a folder with maps by people: name it as "
                "`evaluation.human.path`, or leave the metric out."
            )

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.check_options(bench.options)
        self.options = bench.options.human
        assert self.options.path is not None
        self.maps = HumanMaps(self.options.path)
        images = bench.subject.images
        if not any(self.maps.file(images.path(index)) for index in chosen(images, bench.options)):
            raise DataError(
                f"'{self.maps.folder}' has no map of any image; expected NAME.npy or NAME.png, in it or in the folders "
                f"that the images are in, for '{images.path(0)}'."
            )
        ceilings = dict.fromkeys((None, self.options.ceiling))
        self.columns = self.metrics = [HumanAlignment(ceiling=ceiling) for ceiling in ceilings]

    def meaning(self) -> str:
        told = "" if self.options.ceiling is None else f", where one person's map has {self.options.ceiling:g}"
        return (
            "How far the heatmap of the label ranks the pixels as people did who said what they find important "
            f"(Spearman correlation{told})."
        )

    def judge(self, group: Group) -> Sequence[int]:
        human = torch.from_numpy(np.stack([self._square(views, group.size[0]) for views in group.views]))
        values = human_alignment(label_saliency(group), human)
        for metric in self.columns:
            metric.update(values)
        return group.indices

    def details(self) -> dict[str, Any]:
        words = {"explained_class": "label", "maps": "signed", "ceiling": self.options.ceiling}
        return {**self.bench.shared_details(), **words}

    def _square(self, views: Views, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What people found important in the square of an image; NaN all over where they were not asked."""
        if self.maps.file(views.path) is None:
            return np.full((side, side), np.nan, np.float32)
        image = self.bench.subject.images.image(views.index)  # for its size: a map is cut as its image is
        resize, size = view_sizes(self.bench.subject.data)
        found = self.maps.square(views.path, (image.height, image.width), resize=resize, size=size)
        assert found is not None
        return found
