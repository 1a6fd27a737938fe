"""Reading the attention of a vision transformer during one forward pass, whatever library wrote it.

Fused attention gives no weights, so the functions that compute it are intercepted for the call and computed in the
open: `F.scaled_dot_product_attention` (timm), `F.multi_head_attention_forward` (torchvision), and the softmax of
attention that is written out. Nothing is set in the model.

Legend: h heads, T tokens, D channels of tokens, d of one head, L layers.
"""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain.explainer import Explainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.diagnosis import scripted
from contrex.explain.forward.functions import intercepted
from contrex.explain.forward.sites import Sites
from contrex.explain.options import About
from contrex.models import beside
from contrex.models.classifier import Classifier
from contrex.models.graph import Edge, depends, edge_of
from contrex.models.layers import Reshape


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionPass(Pass):
    """A pass with the attention weights `[N,h,T,T]` of each layer, the first first; row i is what token i attends to.

    `read` [T] tells the tokens from which the classifier reads; `blocks` are what a method watched beside (LeGrad).
    """

    attention: Sequence[Tensor]
    read: Tensor
    blocks: Sequence[Block] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """A module of the transformer in which one attention ran: the tensor it got first, and the `tokens` that it gave,
    `[N,T,D]` or `[T,N,D]`."""

    module: nn.Module
    source: object
    tokens: Tensor


class AttentionExplainer(Explainer):
    """Methods that follow the attention of a vision transformer; maps have the size of the grid of patches.

    Class, distillation and register tokens are left out of it. `reshape` is how tokens `[N,T,1]` become maps
    `[N,1,h,w]` where their number does not tell.

    Raises:
        LayerError: the model has no attention among all its tokens: a CNN, windows (Swin), grids that change; or it is
            no chain: several towers or passes (an ensemble, a pair of images, mirrored copies), parallel branches.
    """

    def __init__(
        self, model: nn.Module | Classifier, *, reshape: Reshape | None = None, **about: Unpack[About]
    ) -> None:
        super().__init__(model, **about)
        if any(isinstance(module, torch.jit.ScriptModule) for module in self.model.modules()):
            raise scripted(f"{type(self.model).__name__} is, or has,")
        self._reshape = reshape
        self._sites = Sites(self.model)

    @contextlib.contextmanager
    def _watched(self, weights: Sequence[Tensor]) -> Iterator[Sequence[Block]]:
        """Watch the blocks of a pass whose attention so far is `weights`, if the method needs them."""
        yield ()

    def _forward(self, images: Tensor, *, differentiable: bool) -> AttentionPass:
        needs_gradients = self.is_class_specific or differentiable
        images = images if images.requires_grad else images.detach().requires_grad_()
        recorder = _Recorder(images, cuts_graph=not needs_gradients)
        with intercepted(recorder), self._watched(recorder.weights) as blocks:
            run = capture.forward(self.model, images, (), graph="all" if differentiable else "head")
        reason = recorder.objection()
        if reason is not None:
            raise LayerError(
                f"{type(self).__name__} cannot explain {type(self.model).__name__}: {reason}. Use GradCAM, which needs "
                "no attention."
            )
        # The last attention's outputs with a gradient are those that the classifier reads.
        top = run.logits.gather(1, run.logits.argmax(1)[:, None]).sum()
        (gradient,) = torch.autograd.grad(top, recorder.mixed[-1], retain_graph=needs_gradients)
        read = (gradient != 0).any(3).any(1).any(0)
        if not bool(read.any()):
            raise LayerError(
                f"no gradient reaches the attention of {type(self.model).__name__}: is its classifier still all zeros?"
            )
        return AttentionPass(run.images, run.logits, run.features, attention=recorder.weights, read=read, blocks=blocks)

    def _placed(self, run: Pass, influence: Tensor) -> Tensor:
        """The map `[N,h,w]` of the influence `[N,T]` of each token."""
        reshape = self._reshape or self._sites.token_grid(run.images, influence.shape[1])
        return reshape(influence[..., None])[:, 0]


class RolloutExplainer(AttentionExplainer):
    """Methods that multiply attention through the layers.

    The map is the row of the token that the classifier reads; the mean of the rows where it reads several (class and
    distillation token, or the average of the patches).
    """

    @abstractmethod
    def _rolled(self, weights: Sequence[Tensor]) -> Tensor:
        """The influence `[N,T,T]` of tokens of the first layer (columns) on those of the last (rows), of one `[N,T,T]`
        per layer."""

    def _map(self, run: AttentionPass, weights: Sequence[Tensor]) -> Tensor:
        """The map `[N,h,w]` that follows from the weights of the layers, `[N,T,T]` each."""
        return self._placed(run, self._rolled(weights)[:, run.read].mean(1))


class _Recorder:
    """Computes attention in the open and keeps its weights, and what they mixed, as parts of the graph.

    With `cuts_graph` the graph starts anew behind each attention, so that only the last stretch takes memory.
    """

    def __init__(self, images: Tensor, *, cuts_graph: bool) -> None:
        self.weights: list[Tensor] = []
        self.mixed: list[Tensor] = []
        """Outputs `[N,h,T,d]` of the attention, before the heads are joined."""
        self._num_images, self._cuts_graph = len(images), cuts_graph
        self._images = edge_of(images)
        self._last: Edge | None = None
        """What the last attention gave; None where nothing was recorded of it."""
        self._strays: list[int] = []
        """The numbers of the attentions that do not go on with what the one before gave."""
        self._num_tokens: set[int] = set()
        # By id, as tensors compare by their numbers; all are kept, so that no other tensor takes over an id.
        self._softmaxes: dict[int, Tensor] = {}
        self._open: dict[int, Tensor] = {}
        """Those among all tokens that have not mixed any values so far."""

    def __call__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__.strip("_")
        if name == "scaled_dot_product_attention":
            return self._attend(*args, **kwargs)
        if name == "multi_head_attention_forward":
            return self._multi_head(*args, **kwargs)
        # Attention that is written out: a softmax, perhaps dropout, and its product with the values.
        output = func(*args, **kwargs)
        if name == "linear" and isinstance(output, Tensor) and output.ndim == 3:
            self._num_tokens.add(output.shape[1])
        elif (name == "softmax" and _is_over_last_axis(output, args, kwargs)) or (
            name == "dropout" and id(args[0]) in self._softmaxes
        ):
            self._softmaxes[id(output)] = output
            if name == "dropout":
                self._open.pop(id(args[0]), None)
            if output.ndim == 4 and output.shape[2] == output.shape[3]:
                self._open[id(output)] = output
        elif name == "matmul" and id(args[0]) in self._softmaxes:
            self._open.pop(id(args[0]), None)
            return self._kept(args[0], output, args[1])
        return output

    def objection(self) -> str | None:
        """Why the attention seen is none that can be rolled out."""
        if not self.weights:
            return "no attention was seen in it (is it a CNN?)"
        for weights in self.weights:
            shape = list(weights.shape)
            if len(weights) != self._num_images:
                return f"it attends within windows: weights {shape} for {self._num_images} image(s)"
            if weights.shape[2] != weights.shape[3] or weights.shape[2] not in self._num_tokens:
                return f"weights {shape} are not from all tokens to all tokens"
        if self._open:
            return (
                f"{len(self._open)} of its softmaxes over all tokens are changed (mixed, gated) before they meet the "
                "values, so only a part of it would be rolled out"
            )
        sizes = sorted({weights.shape[2] for weights in self.weights})
        if len(sizes) > 1:
            return f"its number of tokens changes from layer to layer: {sizes}"
        if self._strays:
            return (
                f"its {len(self.weights)} attentions are no chain, as number {self._strays[0] + 1} does not go on with "
                "what comes before it (several towers or passes, another image, parallel branches)"
            )
        return None

    def _goes_on(self, tokens: Tensor) -> bool:
        """Whether tokens are made of what the last attention gave, the first ones of the images."""
        if self._last is not None:
            return depends(tokens, self._last)
        if self.weights:  # the last one ran without gradients, so nothing tells but that this one has another source
            return not depends(tokens, self._images)
        # Without gradients up to here nothing tells either, but there is nothing else that they could be made of.
        return not beside.has_inputs() or depends(tokens, self._images)

    def _kept(self, weights: Tensor, mixed: Tensor, *made_of: Tensor) -> Tensor:
        """Keep an attention, of tokens `made_of`, and give what it mixed."""
        if not all(map(self._goes_on, made_of)):
            self._strays.append(len(self.weights))
        if self._cuts_graph:
            # Only the gradient at the last attention is asked for, so what is recorded before each cut can be freed.
            weights, mixed = weights.detach(), mixed.detach().requires_grad_()
        self._last = edge_of(mixed) if torch.is_grad_enabled() else None
        self.weights.append(weights)
        self.mixed.append(mixed)
        return mixed

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute `softmax(q k^T / sqrt d + mask) v`, and keep the softmax."""
        if is_causal or enable_gqa or query.ndim != 4:
            raise LayerError(
                "attention rollout needs plain attention [N,h,T,d], neither causal nor with grouped heads."
            )
        # What torch's fused kernel computes, which never has the weights in memory.
        logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if attn_mask is not None:
            is_choice = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, float("-inf")) if is_choice else logits + attn_mask
        weights = logits.softmax(-1).to(value.dtype)
        return self._kept(weights, F.dropout(weights, dropout_p) @ value, query, value)

    def _multi_head(
        self,
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
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """`torch.nn.MultiheadAttention` of tokens `[T,N,D]` among themselves."""
        unusual = [bias_k, bias_v, key_padding_mask, attn_mask, options.get("static_k"), options.get("static_v")]
        if (
            in_proj_weight is None
            or not (query is key is value)
            or add_zero_attn
            or any(x is not None for x in unusual)
        ):
            raise LayerError("attention rollout needs MultiheadAttention of tokens among themselves, without masks.")
        self._num_tokens.add(len(query))
        joined = F.linear(query.transpose(0, 1), in_proj_weight, in_proj_bias)
        q, k, v = joined.reshape(*joined.shape[:2], 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = self._attend(q, k, v, dropout_p=dropout_p if training else 0.0)
        output = F.linear(mixed.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
        weights = self.weights[-1]
        if options.get("average_attn_weights", True):
            weights = weights.mean(1)
        return output.transpose(0, 1), weights if need_weights else None


def _is_over_last_axis(output: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a softmax could be that of attention `[N,h,T,T]`."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(output, Tensor) and output.ndim == 4 and axis in (-1, 3)
