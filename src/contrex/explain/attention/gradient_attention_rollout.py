"""Gradient-weighted attention rollout (Chefer et al., "Generic Attention-model Explainability", ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.explain.attention.weights import AttentionPass, RolloutExplainer
from contrex.explain.forward.capture import Pass
from contrex.ops.scores import Question


class GradientAttentionRollout(RolloutExplainer):
    """`(I + A_L) ... (I + A_1) - I` with `A_l = mean_heads ReLU(dS/dW_l * W_l)` (eq. 5 and 6).

    Attention that speaks for the class, multiplied through the layers; the extension of "Why Not Other Classes?" to
    vision transformers in arXiv 2501.11096. The identity is taken off at the end: it says that a token comes from
    itself.

    The ReLU makes it not linear in the score, so a contrast is the difference of the classes' maps: one backward pass
    for each class with a weight. `score="log_probability"` is one backward pass of the weighted contrast instead, times
    `1 - p_t`.
    """

    name = "gradient_attention_rollout"
    is_linear = False

    def _rolled(self, weights: Sequence[Tensor]) -> Tensor:
        rollout = torch.zeros_like(weights[0])
        for layer in weights:
            # (I + A)(I + R) - I, the identity left out as it is no influence of one token on another.
            rollout = rollout + layer + layer @ rollout
        return rollout

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, AttentionPass)
        maps = []
        for row in question.cotangents(run.logits).unbind(1):
            gradients = torch.autograd.grad(
                run.logits, run.attention, row, retain_graph=True, create_graph=differentiable
            )
            with torch.set_grad_enabled(differentiable), torch.autocast(run.images.device.type, enabled=False):
                pairs = zip(gradients, run.attention, strict=True)
                weights = [(g.to(row.dtype) * attention.to(row.dtype)).relu().mean(1) for g, attention in pairs]
                maps.append(self._map(run, weights))
        return torch.stack(maps, 1)
