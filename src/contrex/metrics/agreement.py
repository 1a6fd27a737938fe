"""Repeatability and reproducibility: whether two networks of one task have the same explanations.

Axes: N images, H W pixels.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.per_sample import PerSampleMetric, bootstrap_interval
from contrex.metrics.similarity import KINDS

Relation = Literal["repeatability", "reproducibility"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)


def agrees_beyond_chance(
    similarities: Tensor, chance: Tensor, *, num_bootstrap: int = 2000, seed: int = 0
) -> bool | None:
    """Whether two networks' maps of one image are more alike than their maps of two images.

    True where the 95 % bootstrap interval of `mean_n (s_n - c_n)` lies above 0, s the similarity of the two maps of an
    image and c that of one network's map with the other's map of another image; None where fewer than two images have
    both. What c has, all maps share: smooth blobs in the middle.

    Arun et al., "Assessing the Trustworthiness of Saliency Maps for Localizing Abnormalities in Medical Imaging"
    (Radiology: AI, 2021) compare SSIM with that of segmentation networks, and use pairs of maps of different images
    as the line for their randomisation test; the same line here, with an interval, is ours.

    >>> import torch
    >>> agrees_beyond_chance(torch.tensor([0.9, 0.8, 0.9]), torch.tensor([0.1, 0.2, 0.1]))
    True
    """
    if similarities.shape != chance.shape or similarities.ndim != 1:
        raise ArgumentError(
            f"`similarities` and `chance` must be [N], got {list(similarities.shape)} and {list(chance.shape)}."
        )
    gained = similarities.double() - chance.double()
    low, _ = bootstrap_interval(gained.cpu(), num_resamples=num_bootstrap, seed=seed)
    return None if low != low else low > 0


class MapAgreement(PerSampleMetric):
    """Mean similarity of the maps of one image by two networks, -1..1, higher is better: `map_similarity`.

    `repeatability` is between networks of one architecture that were trained separately, `reproducibility` between
    networks of different ones. With several others, an image's value is the mean over them.

    >>> import torch
    >>> metric = MapAgreement("repeatability", "ssim")
    >>> metric.update(torch.tensor([0.5, 0.7]), torch.tensor([0.1, 0.2]))
    >>> metric.name, metric.chance(), metric.beyond_chance(num_bootstrap=100, seed=0)
    ('repeatability_ssim', 0.15, True)
    """

    higher_is_better = True
    skip_reason = "a constant heatmap by one of the networks"
    num_columns = 2  # the similarity, and that by chance

    def __init__(self, relation: Relation = "repeatability", kind: str = "ssim") -> None:
        if relation not in RELATIONS:
            raise unknown_name("`relation`", relation, RELATIONS)
        if kind not in KINDS:
            raise unknown_name("`kind`", kind, KINDS)
        self.name = f"{relation}_{kind}"
        self.title = f"{relation.capitalize()} ({KINDS[kind]})"
        self.dims = {"relation": relation, "similarity": kind}
        super().__init__()

    def update(self, similarities: Tensor, chance: Tensor) -> None:
        """Count `similarities [N]` of an image's maps, and the `chance` [N], that of maps of two images; NaN where
        there is none."""
        self.append(similarities, chance)

    def chance(self) -> float:
        """The mean similarity of maps of different images. A sync point: all processes must call it."""
        return round(float(self.rows()[:, 1].nanmean()), 6)

    def beyond_chance(self, *, num_bootstrap: int, seed: int) -> bool | None:
        """`agrees_beyond_chance` of all images. A sync point: all processes must call it."""
        values, chance = self.rows().unbind(1)
        return agrees_beyond_chance(values, chance, num_bootstrap=num_bootstrap, seed=seed)
