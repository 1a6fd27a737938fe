"""Single deletion: whether a map ranks the parts of an image by what the class loses without each (IDSDS).

Axes: N images, C channels, H W pixels, G x G cells of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, Output, asking, check_saliency, in_chunks
from contrex.metrics.removal import baseline_image
from contrex.metrics.similarity import map_similarity
from contrex.ops.pixels import grid_cells


@asking("target", "logits", "batch_size", "task")
def single_deletion(
    answers: Answers,
    saliency: Tensor,
    *,
    grid: int = 4,
    baseline: Tensor | str = "zero",
    output: Output = "logit",
) -> Tensor:
    """Spearman correlation of the heat in each cell of a grid with what deleting that cell takes off the class' logit.

    `rho(sum_{p in cell g} u[p], y_t(x) - y_t(x without cell g))` over the G G cells, u the map at image size. *In
    domain* it is where the network was trained on images without one cell (`settings.CrossEntropy.deletions`), so that
    deleting does not ask it about pictures unlike any it has seen.

    Hesse, Schaub-Meyer and Roth, "Benchmarking the Attribution Quality of Vision Models" (NeurIPS 2024, datasets and
    benchmarks), section 3, and its code: IDSDS, with a grid of 4 x 4, zeros, and the raw signed map. *Deviation*:
    sides that the grid does not divide are cut where pixels end, where the code leaves the rest of them out.

    The network sees `N G G` images, and N more if its logits are not known.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there); the paper's target is the label.
        saliency: `[N,H,W]`, signed, at the size of the images, of the target class.
        grid: G, at least 2 and at most the shorter side.
        baseline: what deleted pixels become: a name of `contrex.metrics.removal` that is one image, or an image.
        output: what is compared: the logit of the class, as in the paper, or its probability.

    Returns:
        float64 `[N]` in -1..1; NaN where all cells have the same heat, or all the same change.

    Raises:
        ArgumentError: a shape, the grid or the baseline does not fit, or the saliency is NaN.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> image, saliency = torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> single_deletion(model, image, saliency, grid=2), single_deletion(model, image, -saliency, grid=2)
    (tensor([1.0000], dtype=torch.float64), tensor([-1.0000], dtype=torch.float64))
    """
    images = answers.images
    check_saliency(images, saliency)
    height, width = images.shape[2:]
    if not 2 <= grid <= min(height, width):
        raise ArgumentError(f"`grid` must be from 2 to {min(height, width)} cells on each side, got {grid}.")
    cells, baseline = grid_cells((height, width), grid).to(images.device), baseline_image(images, baseline)
    num_cells = grid**2

    def without(pair: Tensor) -> Tensor:
        image, cell = pair // num_cells, pair % num_cells
        is_deleted = (cells == cell[:, None, None])[:, None]
        return answers.of(torch.where(is_deleted, baseline[image], images[image]), image, output)

    with answers.session():
        whole = answers.whole(output).double()
        pairs = torch.arange(len(images) * num_cells, device=images.device)
        left = in_chunks(without, pairs, num_images=answers.batch_size).double().view(len(images), num_cells)
    heat = torch.zeros(len(images), num_cells, dtype=torch.float64, device=images.device)
    heat.index_add_(1, cells.flatten(), saliency.detach().to(heat).flatten(1))
    return map_similarity(heat[:, None], (whole[:, None] - left)[:, None].clone(), "spearman")


class SingleDeletion(PerSampleMetric):
    """Mean rank correlation of heat with loss, -1..1, higher is better: `single_deletion`.

    >>> metric = SingleDeletion()
    >>> metric.update(torch.tensor([0.5, torch.nan]))
    >>> metric.name, metric.compute().item()
    ('single_deletion', 0.5)
    """

    name = "single_deletion"
    title = "Single deletion score"
    higher_is_better = True
    skip_reason = "all cells with the same heat, or the same change"

    def update(self, correlations: Tensor) -> None:
        """Count `correlations [N]`, NaN for skipped images."""
        self.append(correlations)
