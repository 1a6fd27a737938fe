"""The protocol that shows where images, views and masked images lie among the features (ExCon, section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contrex import ranks
from contrex.evaluation.bench import Bench, Group
from contrex.evaluation.protocol import Protocol
from contrex.metrics import FeatureSimilarity
from contrex.ops import geometry
from contrex.ops.geometry import Crop
from contrex.ops.pixels import explanation_mask, masked_images
from contrex.records import Scatter

KINDS = ("image", "augmentation", "masked")


class EmbeddingOfViews(Protocol):
    """Embedding: t-SNE of the features of five classes, and how near an image's views are to it."""

    name = "embedding"
    title = "Features of an image and its views"
    needs_heatmaps = True
    needs_features = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        classes = bench.subject.images.classes
        num = min(bench.options.embedding.num_classes, len(classes))
        self.shown = np.linspace(0, len(classes) - 1, num).round().astype(int).tolist()
        self.similarities = {
            view: self.placed(FeatureSimilarity(view), {"view": view}) for view in ("augmented", "masked")
        }
        self.metrics = list(self.similarities.values())
        self._kept: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def meaning(self) -> str:
        return (
            "How near the features of an image are to those of its random view, and of the part of it that its heatmap "
            "keeps (cosine similarity)."
        )

    def judge(self, group: Group) -> Sequence[int]:
        masked = explanation_mask(group.explanation.heatmap, group.size)
        crops = Crop.stack([self.bench.crop("embedding crop", index, group.size[1]) for index in group.indices])
        views = [geometry.warp_images(group.squares, crops), masked_images(group.squares, masked)]
        image, augmented, kept = group.features, *(self.bench.features(some) for some in views)
        self.similarities["augmented"].update(image, augmented)
        self.similarities["masked"].update(image, kept)
        features = torch.stack([image, augmented, kept], dim=1).float().cpu().numpy()
        for index, label, rows in zip(group.indices, group.labels.tolist(), features, strict=True):
            # As many as the picture may need, on each process: which of them it shows is known once all have been
            # gathered.
            if label in self.shown and sum(own == label for own, _ in self._kept.values()) < self._most:
                self._kept[index] = (label, rows)
        return group.indices

    def scatters(self) -> Sequence[Scatter]:
        merged = {index: pair for part in ranks.gathered(self._kept) for index, pair in part.items()}
        chosen = [
            pair
            for label in self.shown
            for pair in [merged[index] for index in sorted(merged) if merged[index][0] == label][: self._most]
        ]
        points = tsne(np.concatenate([rows for _, rows in chosen]), self.bench.options.seed) if chosen else None
        if points is None:
            return ()
        classes = self.bench.subject.images.classes
        names = [(str(classes[label]), kind) for label, _ in chosen for kind in KINDS]
        placed = [(float(x), float(y), *name) for (x, y), name in zip(points, names, strict=True)]
        return [Scatter("embedding", "Features by t-SNE", placed)]

    def details(self) -> dict[str, Any]:
        augmentation = self.bench.subject.augmentation
        return {
            **self.bench.shared_details(),
            "explained_class": "predicted",
            "features": "input of the last linear layer",
            "crop_scale": list(augmentation.scale),
            "flip": augmentation.flip,
            "seed": self.bench.options.seed,
        }

    @property
    def _most(self) -> int:
        return self.bench.options.embedding.num_images


def tsne(features: NDArray[np.float32], seed: int) -> NDArray[np.float32] | None:
    """The t-SNE (van der Maaten and Hinton 2008) of features `[P,D]` as points `[P,2]`; None for fewer than 4.

    scikit-learn computes it, on features of unit length, starting from their principal components. The perplexity is
    30, or less with few points.
    """
    from sklearn.manifold import TSNE

    if len(features) < 4:
        return None
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    # scikit-learn takes seeds of 32 bits.
    points: NDArray[np.float32] = TSNE(
        n_components=2, perplexity=perplexity, init="pca", random_state=seed % 2**32
    ).fit_transform(unit)
    return points
