"""ShapleyCAM (Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from contrex.explain.activation.closed_form import by_autograd
from contrex.explain.activation.grad_cam import GradCAM
from contrex.explain.forward.capture import Features, Pass
from contrex.models.layers import Site
from contrex.ops.scores import Question


class ShapleyCAM(GradCAM):
    """`sum_c w_c A_c` with `w_c = mean_{hw} (g - H A / 2)_c`, g and H the gradient and the Hessian of the score at A.

    Grad-CAM's weights with the curvature: to second order, the Shapley value of a channel in the game that takes
    channels away. `H A` is one more backward pass (a Hessian-vector product) through what follows the layer.

    It is Grad-CAM wherever the score is piecewise linear in the layer: the logit behind pooling and one linear layer,
    and behind ReLUs and max pools. It differs behind smooth functions (SiLU, GELU, attention, squeeze-and-excitation),
    and for any network where the score is a probability. H is linear in the score, so a contrast is one map.

    Deviations: the paper also proposes the score `y_t + log p_t` (ReST): its map is the sum of those of
    `score="logit"` and `score="log_probability"`. The map is signed. A loss on it would take third derivatives, so
    there is no `differentiable=True`.
    """

    name = "shapley_cam"
    unit = ""
    is_density = True
    is_differentiable = False

    def _run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        return super()._run(images, layers, graph="head, twice")

    def _gradient(self, run: Pass, features: Features, question: Question, *, differentiable: bool) -> Tensor:
        # The weights of a contrast come from the logits, and are no part of the score's curvature.
        fixed = replace(question, rows=question.rows.detach())
        with torch.enable_grad():  # the slope of a probability changes with the logits, and is
            rows = fixed.cotangents(run.logits)
        if question.score == "logit" and self._head.linear(run, features, rows) is not None:
            return super()._gradient(run, features, question, differentiable=differentiable)
        return torch.stack([features.maps(_curved(run, features, row)) for row in rows.unbind(1)], 1)


def _curved(run: Pass, features: Features, row: Tensor) -> Tensor:
    """`g - H A / 2`, of the shape of the layer's output, for one row [N,K] of cotangents."""
    gradient = by_autograd(run, features, row, keep=True, differentiable=True)
    if not gradient.requires_grad:  # nothing behind the layer is curved
        return gradient
    activation = features.output
    (product,) = torch.autograd.grad(
        gradient, activation, activation.detach(), retain_graph=True, materialize_grads=True
    )
    return gradient.detach() - product / 2
