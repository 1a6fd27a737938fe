"""Functions that are made of others, written out, so that each part has its rule.

They are called with torch's interception on: every function inside is seen as if the model had called it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.explain.propagation.rules import NoRuleError


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> Tensor:
    """`softmax(q k^T scale + mask)`, with `1 / sqrt(d)` as the default scale; a mask of truths says what is seen."""
    logits = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention`: `softmax(q k^T / sqrt(d) + mask) v`."""
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    weights = attention_weights(query, key, attn_mask, is_causal=is_causal, scale=scale)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def _multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward`, of tokens `[T,N,D]` or `[T,D]` and keys `[S,N,D]` or `[S,D]`."""
    if add_zero_attn or any(extra is not None for extra in (bias_k, bias_v, static_k, static_v)):
        raise NoRuleError("no rule says how relevance passes through attention with keys and values of its own")
    is_batch = query.ndim == 3
    tokens = [t if is_batch else t.unsqueeze(1) for t in (query, key, value)]
    if in_proj_weight is not None and query is key is value:
        parts = F.linear(tokens[0], in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        separate = [q_proj_weight, k_proj_weight, v_proj_weight]
        weights = separate if in_proj_weight is None else list(in_proj_weight.chunk(3))
        biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))
        parts = tuple(F.linear(*one) for one in zip(tokens, weights, biases, strict=True))  # type: ignore[arg-type]
    q, k, v = (part.reshape(*part.shape[:-1], num_heads, -1).permute(1, 2, 0, 3) for part in parts)  # [N,heads,T,d]
    mask = _joined_mask(attn_mask, key_padding_mask, len(q), num_heads, q.dtype)
    attention = attention_weights(q, k, mask, is_causal=is_causal and mask is None, scale=None)
    mixed = F.dropout(attention, dropout_p if training else 0.0) @ v
    output = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    shown = attention.detach().mean(1) if average_attn_weights else attention.detach()
    output, shown = (output, shown) if is_batch else (output.squeeze(1), shown.squeeze(0))
    return output, shown if need_weights else None


def _joined_mask(
    mask: Tensor | None, padding: Tensor | None, num: int, num_heads: int, dtype: torch.dtype
) -> Tensor | None:
    """Both masks as one that is added, `[T,S]` or `[N,heads or 1,T or 1,S]`; MultiheadAttention's truths are hidden."""
    masks = []
    if mask is not None:
        masks.append(mask.view(num, num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask)
    if padding is not None:
        masks.append(padding.view(num, 1, 1, -1))
    added = [
        torch.zeros(one.shape, dtype=dtype, device=one.device).masked_fill(one, float("-inf"))
        if one.dtype == torch.bool
        else one
        for one in masks
    ]
    return sum(added[1:], added[0]) if added else None


def _addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    return beta * input + alpha * (a @ b)


def _addcmul(input: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:  # noqa: A002
    return input + value * (a * b)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    signal, gate = x.chunk(2, dim)
    return signal * gate.sigmoid()


WRITTEN_OUT: Mapping[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": fused_attention,
    "multi_head_attention_forward": _multi_head,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "addcmul": _addcmul,
    "glu": _glu,
    "rsub": lambda x, other: -x + other,
}
