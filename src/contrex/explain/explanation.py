"""What an explainer returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.ops import heatmap as heatmaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heatmaps with what they explain.

    `heatmap` [N,h,w] is raw and signed, float32 (float64 for a float64 model), on the images' device, at layer size:
    positive cells speak for the target, negative ones against it - or, with a contrast, for the other classes.
    `logits` [N,K] come from the same forward pass; `target` [N] holds the explained classes.
    """

    heatmap: Tensor
    logits: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.heatmap)

    @property
    def empty(self) -> Tensor:
        """Which maps [N] are zero everywhere: there is nothing to normalise, show or localise in them."""
        return heatmaps.is_empty(self.heatmap)

    @property
    def probability(self) -> Tensor:
        """The softmax probability [N] of the target."""
        return self.logits.softmax(1).gather(1, self.target[:, None])[:, 0]

    def positive(self) -> Explanation:
        """The evidence for the target only (ReLU)."""
        return replace(self, heatmap=heatmaps.positive(self.heatmap))

    def resize(self, size: int | tuple[int, int]) -> Explanation:
        """The maps resized bilinearly to `size`, a square or (H, W)."""
        return replace(self, heatmap=heatmaps.resize(self.heatmap, size))

    def show(
        self,
        images: Tensor,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        captions: Sequence[str] = (),
        channels: Sequence[int] | None = None,
    ) -> Figure:
        """A figure: each image beside its map, on a diverging colour map centred on zero with a colour bar.

        `images` [N,C,H,W] are what was explained, in this or another resolution: maps are resized to them. `mean` and
        `std` undo their normalisation (without them, pictures that leave [0, 1] are stretched to it, so colours are
        only roughly right); `captions` name them. One channel is drawn grey, three in colours; of others `channels`
        names one or three. Pictures more than four times as long as wide are drawn as four times.

        Raises:
            ArgumentError: there is not one image, or not one caption, per map; channels cannot be drawn; pixels are not
                finite; or there are more images than fit into one figure.
        """
        from contrex.explain.figure import Panel, Row, draw, pictures

        if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != len(self) or not images.numel():
            got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ArgumentError(f"`images` must be [{len(self)},C,H,W], one per map; got {got}.")
        if captions and len(captions) != len(self):
            raise ArgumentError(f"`captions` must be {len(self)} texts, one per map; got {len(captions)}.")
        shown = zip(pictures(images, mean, std, channels), self.heatmap, captions or [""] * len(self), strict=True)
        return draw([Row(picture, [Panel(values)], caption) for picture, values, caption in shown])


@dataclass(frozen=True, eq=False)
class ClassExplanations:
    """Signed maps of several classes of each image, from one forward pass.

    `heatmap` [N,M,h,w], `logits` [N,K], `target` [N,M]: the classes, most probable first unless they were named.
    """

    heatmap: Tensor
    logits: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.heatmap)

    def explanation(self, index: int) -> Explanation:
        """The explanation of the class at place `index` of each image."""
        return Explanation(self.heatmap[:, index], self.logits, self.target[:, index])

    def pair(self, index: int, foil: int) -> Explanation:
        """Why the class at place `index` rather than the one at place `foil`: the difference of their maps."""
        return Explanation(self.heatmap[:, index] - self.heatmap[:, foil], self.logits, self.target[:, index])

    def pairs(self) -> Tensor:
        """All pairwise contrasts `[N,M,M,h,w]`: entry (i, j) is why class i rather than class j."""
        return self.heatmap[:, :, None] - self.heatmap[:, None, :]

    def weighted(self) -> Tensor:
        """The weighted contrast `[N,M,h,w]` of each class against the other M - 1: `phi_i - sum_j a_j phi_j`."""
        logits = self.logits.gather(1, self.target)
        num = logits.shape[1]
        itself = torch.eye(num, dtype=torch.bool, device=logits.device)
        weights = logits[:, None].expand(-1, num, -1).masked_fill(itself, float("-inf")).softmax(2)
        return self.heatmap - torch.einsum("nij,njhw->nihw", weights.to(self.heatmap), self.heatmap)
