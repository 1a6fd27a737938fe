"""What an explainer returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.ops import heatmap as heatmaps
from contrex.ops import scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Heatmaps of images, with the classes and logits that they explain.

    `heatmap` [N,h,w] is raw and signed, float32 (float64 for a float64 model), on the images' device, at layer size:
    positive cells speak for the target, negative ones against it - or, with a contrast, for the other classes.
    `logits` [N,K] come from the same forward pass; `target` [N] holds the explained classes. `task` says what the
    logits are (`contrex.ops.scores`): "multiclass", "binary" or "multilabel", None by their number.
    """

    heatmap: Tensor
    logits: Tensor
    target: Tensor
    task: str | None = None

    @classmethod
    def cat(cls, parts: Sequence[Explanation]) -> Explanation:
        """Join explanations of one task, in their order; at least one.

        Raises:
            ArgumentError: there are none, or their tasks differ.
        """
        tasks = {part.task for part in parts}
        if len(tasks) != 1:
            raise ArgumentError(
                f"`parts` must be explanations of one task, got {len(parts)} of {sorted(map(str, tasks))}."
            )
        heatmap, logits, target = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("heatmap", "logits", "target")
        )
        return cls(heatmap, logits, target, *tasks)

    def __len__(self) -> int:
        return len(self.heatmap)

    @property
    def empty(self) -> Tensor:
        """Which maps [N] are zero everywhere: there is nothing to normalise, show or localise in them."""
        return heatmaps.is_empty(self.heatmap)

    @property
    def probability(self) -> Tensor:
        """The probability [N] of the target: of the softmax, or of a sigmoid where `task` says so."""
        return scores.probability(self.logits, self.target, self.task)

    def positive(self) -> Explanation:
        """The same explanation with the evidence for the target only (ReLU)."""
        return replace(self, heatmap=heatmaps.positive(self.heatmap))

    def resize(self, size: int | tuple[int, int]) -> Explanation:
        """The same explanation with maps resized bilinearly to `size`, a square or (H, W)."""
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
    `task` as in `Explanation`; `score` is what was explained of each class; `threshold` says which labels are
    `present`.
    """

    heatmap: Tensor
    logits: Tensor
    target: Tensor
    task: str | None = None
    score: str = "logit"
    threshold: float = scores.DEFAULT_THRESHOLD

    def __len__(self) -> int:
        return len(self.heatmap)

    @property
    def probability(self) -> Tensor:
        """The probability [N,M] of each class: of the softmax, or of a sigmoid where `task` says so."""
        return scores.probabilities(self.logits, self.task).gather(1, self.target)

    @property
    def present(self) -> Tensor:
        """Which classes [N,M], boolean, have a probability above the threshold: images have different numbers of
        labels, and all have M maps."""
        return self.probability > self.threshold

    def explanation(self, index: int) -> Explanation:
        """The explanation of the class at place `index` of each image."""
        return Explanation(self.heatmap[:, index], self.logits, self.target[:, index], self.task)

    def pair(self, index: int, foil: int) -> Explanation:
        """Why the class at place `index` rather than the one at place `foil`: the difference of their maps (half of it
        for the two sides of one logit, whose contrast is that logit)."""
        difference = self._scale * (self.heatmap[:, index] - self.heatmap[:, foil])
        return Explanation(difference, self.logits, self.target[:, index], self.task)

    def pairs(self) -> Tensor:
        """All pairwise contrasts `[N,M,M,h,w]`: entry (i, j) is why class i rather than class j, as in `pair`."""
        return self._scale * (self.heatmap[:, :, None] - self.heatmap[:, None, :])

    def weighted(self) -> Tensor:
        """The weighted contrast `[N,M,h,w]` of each class against the other M - 1: `phi_i - sum_j a_j phi_j`; half of
        it for the two sides of one logit, and `phi_i` for labels, which do not compete.

        Raises:
            ArgumentError: there is one class only, and labels do compete.
        """
        if scores.task_of(self.logits, self.task) == "multilabel":
            return self.heatmap
        logits = scores.class_logits(self.logits, self.task).gather(1, self.target)
        num = logits.shape[1]
        if num < 2:
            raise ArgumentError("`weighted` needs the maps of at least two classes, there is one: ask for k=2 or more.")
        itself = torch.eye(num, dtype=torch.bool, device=logits.device)
        weights = logits[:, None].expand(-1, num, -1).masked_fill(itself, float("-inf")).softmax(2)
        others = torch.einsum("nij,njhw->nihw", weights.to(self.heatmap), self.heatmap)
        return self._scale * (self.heatmap - others)

    @property
    def _scale(self) -> float:
        return scores.contrast_scale(scores.task_of(self.logits, self.task), self.score)
