"""Whether the explanation moves with the picture: the CGC loss as the paper evaluates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contrex import settings
from contrex.data.evaluation_views import Views
from contrex.data.views import stream
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.losses import cgc_losses
from contrex.metrics import CGCLossMetric
from contrex.ops import geometry
from contrex.ops.geometry import Crop

BATCH = 32
"""Images judged together: the CGC loss is defined on batches of 32 (CVPR 2022, section 4)."""

TEMPERATURE = settings.CGC.temperature
"""tau of the CGC loss as a metric: the paper's, whatever a run was trained with."""


class CGCLoss(Protocol):
    """The CGC loss with the other images of the group as negatives; a last, incomplete group is skipped."""

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metric = CGCLossMetric()
        self.metrics = [self.metric]

    def judge(self, group: Group) -> Sequence[int]:
        if len(group) < BATCH:
            self.metric.update(torch.empty(0), num_skipped=len(group))
            return group.indices
        crops = Crop.stack([self.crop(views) for views in group.views])
        moved = self.bench.explain(
            geometry.warp_images(group.squares, crops),
            group.explanation.target,
            group.views,
            contrast=self.bench.options.contrast,
        )
        side = group.squares.shape[3]
        self.metric.update(
            cgc_losses(group.explanation.heatmap, moved.heatmap, crops, temperature=TEMPERATURE, size=side)
        )
        return group.indices

    def crop(self, views: Views) -> Crop:
        """The transform of one image, a function of its index and `evaluation.seed`."""
        augmentation = self.bench.subject.augmentation
        return geometry.random_crop(
            1,
            views.square.shape[-1],
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            flip=augmentation.flip,
            generator=stream("evaluation crop", self.bench.options.seed, views.index),
        )

    def details(self) -> dict[str, Any]:
        augmentation = self.bench.subject.augmentation
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted on the plain image",
            "batch": BATCH,
            "temperature": TEMPERATURE,
            "crop_scale": list(augmentation.scale),
            "crop_ratio": list(augmentation.ratio),
            "flip": augmentation.flip,
            "seed": self.bench.options.seed,
        }
