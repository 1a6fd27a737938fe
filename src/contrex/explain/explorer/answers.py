"""What models say of a picture and its views: the classes' maps of each, as many as fit on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contrex.explain.explainer import Explainer
from contrex.explain.explorer.class_maps import ClassMaps, class_maps
from contrex.explain.explorer.content import VIEWS
from contrex.models import Classifier, eval_mode, model_logits
from contrex.models.outputs import read_by
from contrex.ops import scores

NUMBERS = 260_000
"""Numbers of all maps of the whole picture: two bytes each, 2.7 in the page."""

NUMBERS_OF_VIEWS = 40_000
"""The same of all its other views."""

MOST_OF_VIEWS = 30
"""Classes that have maps of the other views, at most."""


class Seen(Protocol):
    """What is seen of a picture: one of its views, or the picture as someone has changed it."""

    def of(self, picture: Image.Image) -> Image.Image:
        """What is seen of a picture, in the picture's size."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A classifier on the page, what it sees of the picture, and the explainers of its network."""

    classifier: Classifier
    explainers: Sequence[Explainer]
    seen: Image.Image

    def views(self, views: Sequence[Seen]) -> Tensor:
        """What the network gets of each view, normalised [V,3,H,W]."""
        shown = np.stack([np.array(view.of(self.seen)) for view in views])
        like = next((one for one in self.classifier.network.parameters() if one.is_floating_point()), torch.zeros(()))
        images = torch.from_numpy(shown).permute(0, 3, 1, 2).to(like.device) / 255
        return self.classifier.normalise(images).to(like.dtype)


def answers(
    asked: Sequence[Asked], *, task: str | None = None, first: Sequence[int] = (), views: Sequence[Seen] = VIEWS
) -> list[list[list[ClassMaps]]]:
    """The maps for each view, each model and each explainer. The classes of which there are maps are the same for all:
    `first`, and then the most probable ones, of all models and views together. Errors as in a call of an explainer."""
    images = [one.views(views) for one in asked]
    wanted = _by_probability(asked, images, task, first)
    num = len(asked) * len(asked[0].explainers)
    of_views = NUMBERS_OF_VIEWS // (num * max(1, len(views) - 1))
    return [
        [
            [
                class_maps(
                    explain,
                    seen[place, None],
                    wanted,
                    task=task,
                    most=MOST_OF_VIEWS if place else len(wanted),
                    cells=of_views if place else NUMBERS // num,
                )
                for explain in one.explainers
            ]
            for one, seen in zip(asked, images, strict=True)
        ]
        for place in range(len(views))
    ]


def _by_probability(
    asked: Sequence[Asked], images: Sequence[Tensor], task: str | None, first: Sequence[int]
) -> list[int]:
    """All classes: `first`, then the others by their largest probability anywhere."""
    largest = torch.stack([_probabilities(one, seen, task).amax(0) for one, seen in zip(asked, images, strict=True)])
    order: list[int] = largest.amax(0).sort(descending=True, stable=True).indices.tolist()
    return list(dict.fromkeys([*first, *order]))


def _probabilities(asked: Asked, images: Tensor, task: str | None) -> Tensor:
    network, output = asked.classifier.network, asked.explainers[0].output
    with eval_mode(network), torch.inference_mode(), read_by(output):
        return scores.probabilities(model_logits(network, images).float().cpu(), task)
