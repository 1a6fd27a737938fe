"""Attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrex.explain.attention.weights import AttentionPass, RolloutExplainer
from contrex.explain.forward.capture import Pass
from contrex.ops.scores import Question


class AttentionRollout(RolloutExplainer):
    """`A_L ... A_2 A_1` with `A_l = (mean_heads W_l + I) / 2`: attention multiplied through the layers (eq. 1 and 2).

    How much each patch mixes into the token that is classified. The residual connection counts as much as attention.
    It is the same for any class, so there is no contrast. Rows of `A_l` sum to 1, and so does the map together with the
    class and register tokens.
    """

    name = "attention_rollout"
    unit = "share of the attention"
    is_class_specific = False

    def _rolled(self, weights: Sequence[Tensor]) -> Tensor:
        identity = torch.eye(weights[0].shape[1], dtype=weights[0].dtype, device=weights[0].device)
        rollout = identity
        for layer in weights:
            rollout = (layer + identity) / 2 @ rollout
        return rollout

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, AttentionPass)
        weights = [attention.to(run.logits.dtype).mean(1) for attention in run.attention]
        with torch.autocast(run.images.device.type, enabled=False):
            heatmap = self._map(run, weights)
        return heatmap[:, None].expand(-1, question.rows.shape[1], -1, -1)
