"""Protocols that ask whether the explanation moves with the picture, by the paper's CGC loss and by the equivariance
error, and how much of the picture it is spread over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contrex import settings
from contrex.data.streams import stream
from contrex.data.views.evaluation import Views
from contrex.evaluation.asking import explained_again
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.losses import cgc_losses
from contrex.metrics import (
    CGCLossMetric,
    CurveMean,
    EquivarianceError,
    Spread,
    crop_of_strength,
    equivariance_similarity,
)
from contrex.ops import geometry
from contrex.ops.geometry import Crop
from contrex.records import Profile

BATCH = 32
"""Images judged together: the CGC loss is defined on batches of 32 (CVPR 2022, section 4)."""

TEMPERATURE = settings.CGC.temperature
"""tau of the CGC loss as a metric: always the paper's, whatever the run was trained with."""


class CGCLoss(Protocol):
    """CGC loss, with the other images of the group as negatives. An incomplete last group is skipped."""

    name = "cgc_loss"
    title = "CGC loss"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metric = CGCLossMetric()
        self.metrics = [self.metric]

    def meaning(self) -> str:
        augmentation = self.bench.subject.augmentation
        moved = "cropped and flipped" if augmentation.flip else "cropped"
        return (
            f"How hard it is to find an image's heatmap, once {moved}, among those of the other images of its batch: "
            "low when explanations move with the picture and tell images apart."
        )

    def judge(self, group: Group) -> Sequence[int]:
        if len(group) < BATCH:
            self.metric.update(torch.empty(0), num_skipped=len(group))
            return group.indices
        crops = Crop.stack([self.crop(views) for views in group.views])
        plain, moved = group.explanation, explained_again(group, geometry.warp_images(group.squares, crops))
        losses = cgc_losses(plain.heatmap, moved.heatmap, crops, temperature=TEMPERATURE, size=group.size[1])
        self.metric.update(losses)
        return group.indices

    def crop(self, views: Views) -> Crop:
        """The crop of one image: see `Bench.crop`."""
        return self.bench.crop("evaluation crop", views.index, views.square.shape[-1])

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


class Equivariance(Protocol):
    """Equivariance error: how far T(g(x)) is from g(T(x)), for a flip and for crops of each strength."""

    name = "equivariance"
    title = "Equivariance error"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        shares = sorted(bench.options.equivariance_shares, reverse=True)
        self.errors = [EquivarianceError(1.0, flip=True), *(EquivarianceError(share) for share in shares)]
        self.metrics = [self.placed(one, {"share": one.share, "flip": one.flip}) for one in self.errors]
        self.mean = CurveMean()

    def judge(self, group: Group) -> Sequence[int]:
        similarities = [self._similarity(group, error) for error in self.errors]
        for error, similarity in zip(self.errors, similarities, strict=True):
            error.update(similarity)
        self.mean.update(1 - torch.stack(similarities[1:], dim=1))
        return group.indices

    def meaning(self) -> str:
        return (
            "How far the heatmap of a cropped or flipped image is from the cropped or flipped heatmap of the image: 0 "
            "when the explanation moves with the picture, 1 when the two have nothing in common."
        )

    def profiles(self) -> Sequence[Profile]:
        points = self.bench.points(self.mean, [100 * error.share for error in self.errors[1:]])
        return [Profile("equivariance", "Equivariance error", "area that the crop keeps, %", "error", {"": points})]

    def details(self) -> dict[str, Any]:
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted on the plain image",
            "maps": "signed",
            "seed": self.bench.options.seed,
        }

    def _similarity(self, group: Group, error: EquivarianceError) -> Tensor:
        seed, side, percent = self.bench.options.seed, group.size[1], round(100 * error.share)
        draws = [stream("equivariance", seed, index, percent) for index in group.indices]
        crops = [crop_of_strength(1, side, share=error.share, flip=error.flip, generator=one) for one in draws]
        crop = Crop.stack(crops)
        moved = explained_again(group, geometry.warp_images(group.squares, crop))
        return equivariance_similarity(group.explanation.heatmap, moved.heatmap, crop, size=side)


class HeatmapSpread(Protocol):
    """Spread of the heatmap: the share of its cells that an even map of the same entropy covers."""

    name = "spread"
    title = "Spread of the heatmap"

    needs_heatmaps = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.metric = Spread()
        self.metrics = [self.metric]

    def meaning(self) -> str:
        return (
            "How much of the picture the heatmap's positive part is spread over: 100 % where it is the same "
            "everywhere. Neither more nor less is better by itself."
        )

    def judge(self, group: Group) -> Sequence[int]:
        self.metric.update(group.explanation.heatmap)
        return group.indices

    def details(self) -> dict[str, Any]:
        return {**self.bench.shared_details(), "explained_class": "predicted on the plain image"}
