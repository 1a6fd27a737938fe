"""Guided Grad-CAM (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Unpack
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from contrex.explain.activation.grad_cam import GradCAM
from contrex.explain.forward.capture import Pass
from contrex.explain.input.guided_backprop import GuidedBackprop
from contrex.explain.options import About
from contrex.models.classifier import Classifier
from contrex.models.layers import Layer, Reshape
from contrex.ops import heatmap as heatmaps
from contrex.ops.scores import Question


class GuidedGradCAM(GradCAM):
    """`ReLU(L) * sum_c R_c`: Grad-CAM L, upsampled to the image, times guided backprop R (section 3.1).

    Grad-CAM tells the classes apart and guided backprop is sharp. Both are of the same class; a contrast is the
    difference of the classes' products, as the product is not linear in the score. Maps have the size of the image. Two
    forward passes for any number of classes, and a backward pass to the pixels for each.

    Deviations: bilinear upsampling (captum's default is the nearest cell); the paper shows the colours of R, this is
    their sum.

    Raises:
        LayerError: there is no ReLU, or it is hidden, as for `GuidedBackprop`.
    """

    name = "guided_grad_cam"
    unit = ""
    is_linear = False
    is_differentiable = False
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        self._guided = GuidedBackprop(self.model)
        # By the pass, held weakly: every question about one pass goes back through one guided pass.
        self._passes: WeakKeyDictionary[Pass, Pass] = WeakKeyDictionary()

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        maps = super()._maps(run, question, differentiable=False)
        if run not in self._passes:
            self._passes[run] = replace(
                self._guided._forward(run.images.detach(), differentiable=False), is_shared=True
            )
        sharp = self._guided._maps(self._passes[run], question, differentiable=False)
        size = (sharp.shape[2], sharp.shape[3])
        with torch.autocast(sharp.device.type, enabled=False):
            return heatmaps.resize(maps.relu().flatten(0, 1), size).view_as(sharp) * sharp
