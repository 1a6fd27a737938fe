"""Maps of an activation alone, which are the same for any class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.explain.explainer import LayerExplainer
from contrex.explain.forward.capture import Pass
from contrex.models.layers import Site
from contrex.ops.scores import Question


class ClasslessExplainer(LayerExplainer):
    """Methods that look at what a layer gives and at no class: no gradient, one forward pass, no contrast."""

    is_class_specific = False
    is_differentiable = False
    ranks = (1, 2, 3)

    @abstractmethod
    def heatmap(self, activation: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`; NaN where that is not finite."""

    def _run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        return super()._run(images, layers, graph="none")

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        with torch.autocast(run.logits.device.type, enabled=False):
            heatmap = self.heatmap(features.maps(features.output).detach().to(run.logits.dtype))
        return heatmap[:, None].repeat(1, question.rows.shape[1], 1, 1)


def turned(component: Tensor, cells: Tensor) -> Tensor:
    """Components `[N,hw]` of activations `[N,hw,C]`, each with the sign that `EigenCAM` tells."""
    product = (component * cells.mean(2)).sum(1, keepdim=True)
    # A sign that only rounding decides would differ between devices.
    rounding = 100 * torch.finfo(cells.dtype).eps * (component.abs() * cells.abs().mean(2)).sum(1, keepdim=True)
    largest = component.gather(1, component.abs().argmax(1, keepdim=True))
    deciding = torch.where(product.abs() > rounding, product, largest)
    return component * torch.ones_like(deciding).where(deciding >= 0, -1)


def finite_cells(activation: Tensor) -> tuple[Tensor, Tensor]:
    """The cells `[N,hw,C]` of activations `[N,C,h,w]`, and which images `[N,1]` are finite; the others are zeros.

    One broken image would make torch refuse the decomposition of a whole batch.
    """
    cells = activation.flatten(2).mT
    finite = cells.isfinite().flatten(1).all(1)[:, None]
    return cells.where(finite[..., None], 0), finite
