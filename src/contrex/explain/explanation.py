"""What an explainer returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        captions: Sequence[str] = (),
    ) -> Figure:
        """A figure: each image beside its map, on a diverging colour map centred on zero with a colour bar.

        `images` [N,3,H,W] are what was explained; `mean` and `std` undo their normalisation; `captions` name them.

        Raises:
            ArgumentError: there is not one image, or not one caption, per map.
        """
        from contrex.explain.figure import Row, draw, pictures

        if images.ndim != 4 or len(images) != len(self):
            raise ArgumentError(f"`images` must be [{len(self)},3,H,W], one per map; got {list(images.shape)}.")
        if captions and len(captions) != len(self):
            raise ArgumentError(f"`captions` must be {len(self)} texts, one per map; got {len(captions)}.")
        shown = zip(pictures(images, mean, std), self.heatmap, captions or [""] * len(self), strict=True)
        return draw([Row(picture, values, caption) for picture, values, caption in shown])
