"""Eigen-CAM (Muhammad and Yeasin, IJCNN 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.explain.explainer import LayerExplainer
from contrex.explain.forward.capture import Pass
from contrex.models.layers import Site
from contrex.ops.scores import Question


class EigenCAM(LayerExplainer):
    """`A v`: the activation `[hw,C]` projected on its first right singular vector (section III).

    It shows what the layer responds to most, whatever the class: no gradient, one forward pass, no contrast.

    Deviation: a singular vector has no sign of its own and the paper chooses none. Here the product of the map with the
    mean activation over the channels is positive; so behind a ReLU no cell is negative. Where the product is 0 but for
    rounding, as behind a layer norm without a scale, the largest cell is positive.
    """

    name = "eigen_cam"
    is_class_specific = False
    is_differentiable = False
    ranks = (1, 2, 3)

    def _run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        return super()._run(images, layers, graph="none")

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,) = run.features
        with torch.autocast(run.logits.device.type, enabled=False):
            heatmap = first_component(features.maps(features.output).detach().to(run.logits.dtype))
        return heatmap[:, None].repeat(1, question.rows.shape[1], 1, 1)


def first_component(activation: Tensor) -> Tensor:
    """The first principal component, not centred, of each activation `[N,C,h,w]`: `[N,h,w]`, NaN where that is not
    finite."""
    cells = activation.flatten(2).mT
    finite = cells.isfinite().flatten(1).all(1)[:, None]
    # One broken image would make torch refuse the whole batch, so it takes part as zeros and becomes NaN afterwards.
    left, singular, _ = torch.linalg.svd(cells.where(finite[..., None], 0), full_matrices=False)
    component = left[..., 0] * singular[:, :1]
    signed: Tensor = (component * _sign(component, cells)).where(finite, torch.nan)
    return signed.reshape(len(activation), *activation.shape[2:])


def _sign(component: Tensor, cells: Tensor) -> Tensor:
    """1 or -1 for each component `[N,hw]` of activations `[N,hw,C]`: `[N,1]`."""
    product = (component * cells.mean(2)).sum(1, keepdim=True)
    # A sign that only rounding decides would differ between devices.
    rounding = 100 * torch.finfo(cells.dtype).eps * (component.abs() * cells.abs().mean(2)).sum(1, keepdim=True)
    largest = component.gather(1, component.abs().argmax(1, keepdim=True))
    deciding = torch.where(product.abs() > rounding, product, largest)
    return torch.ones_like(deciding).where(deciding >= 0, -1)
