"""The pictures of a group of images that an evaluation keeps for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from contrex.data.views.evaluation import Picture, Views
from contrex.evaluation.bench import Group, explained_wholes, of_equal_shape
from contrex.evaluation.explored import explored


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture for the report: the image's index, the picture, the heatmap of its label, and that of the predicted
    class if the image is classified wrongly; and what the explorer's page needs to ask it (`explored`), or ""."""

    index: int
    picture: Picture
    heatmap: NDArray[np.float32]
    predicted: NDArray[np.float32] | None
    answer: str


def pictures(group: Group, predictions: Tensor) -> list[ShownPicture]:
    """The pictures for the report. One whose prediction, of `predictions` [N], is not its label has the heatmap of
    the predicted class, too."""
    wrong = [
        position
        for position, views in enumerate(group.views)
        if views.picture is not None and int(predictions[position]) != int(group.labels[position])
    ]
    predicted = {
        views.index: values
        for positions in of_equal_shape(group.views, wrong)
        for views, values in explained_wholes(group, positions, predictions).shown()
    }
    return [
        ShownPicture(views.index, views.picture, values, predicted.get(views.index), _answer(group, views, predictions))
        for same in group.wholes
        for views, values in same.shown()
        if views.picture is not None
    ]


def _answer(group: Group, views: Views, predictions: Tensor) -> str:
    """What the explorer's page needs to ask an image: its label and its prediction come before all other classes."""
    position = group.indices.index(views.index)
    first = [int(group.labels[position]), int(predictions[position])]
    return explored(group.bench, views, group.logits[position], first)
