"""Human alignment: whether a heatmap ranks the pixels of an image as people did.

Axes: N images, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.similarity import map_similarity


def human_alignment(saliency: Tensor, human: Tensor) -> Tensor:
    """Spearman correlation of each heatmap with the map of what people found important in the image.

    `rho(ranks(u_n), ranks(human_n))` over the pixels, equal values with their mean rank. Fel et al., "Harmonizing the
    Object Recognition Strategies of Deep Neural Networks with Humans" (NeurIPS 2022), section 3, on maps of the game
    ClickMe (Linsley et al., 2017). *Deviations*: maps are signed, so evidence against the class ranks last; the paper
    explains by the largest absolute gradient of the channels. The paper blurs people's clicks; here their maps are
    taken as they are.

    Args:
        saliency: `[N,H,W]`, signed, at the size of the images.
        human: `[N,H,W]`; NaN all over where there is none.

    Returns:
        float64 `[N]` in -1..1; NaN where people gave no map, or one of the two is constant.

    Raises:
        ArgumentError: shapes differ, or a map is not finite.

    >>> saliency = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> human_alignment(saliency, saliency**2), human_alignment(saliency, torch.full((1, 2, 2), torch.nan))
    (tensor([1.0000], dtype=torch.float64), tensor([nan], dtype=torch.float64))
    """
    if human.shape != saliency.shape or human.ndim != 3:
        raise ArgumentError(
            f"`human` must have the shape of `saliency`, [N,H,W], got {list(human.shape)} and {list(saliency.shape)}."
        )
    has_map = ~human.isnan().flatten(1).all(dim=1)
    values = torch.full((len(human),), torch.nan, dtype=torch.float64, device=saliency.device)
    if has_map.any():
        values[has_map] = map_similarity(saliency[has_map], human.to(saliency.device)[has_map], "spearman")
    return values


class HumanAlignment(PerSampleMetric):
    """Mean rank correlation with people's maps, -1..1, higher is better: `human_alignment`.

    With a `ceiling`, how well one person's map predicts another's, it is the share of that in %, named
    `human_alignment_of_ceiling`.

    >>> metric = HumanAlignment(ceiling=0.8)
    >>> metric.update(torch.tensor([0.4, torch.nan]))
    >>> metric.name, metric.compute().item()
    ('human_alignment_of_ceiling', 50.0)
    """

    higher_is_better = True
    skip_reason = "no map by people, or a constant map"

    def __init__(self, *, ceiling: float | None = None) -> None:
        if ceiling is not None and not 0 < ceiling <= 1:
            raise ArgumentError(f"`ceiling` must be a correlation above 0 and at most 1, got {ceiling}.")
        self.ceiling = ceiling
        self.name, self.title = "human_alignment", "Human alignment (Spearman)"
        if ceiling is not None:
            self.name, self.title, self.unit = f"{self.name}_of_ceiling", "Human alignment, share of the ceiling", "%"
        self.dims = {"ceiling": ceiling or 0.0}
        super().__init__()

    def update(self, correlations: Tensor) -> None:
        """Count `correlations [N]` of `human_alignment`, NaN for skipped images."""
        self.append(correlations if self.ceiling is None else 100 * correlations / self.ceiling)
