"""LeGrad (Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers", ICCV 2025)."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError
from contrex.explain.attention.weights import AttentionExplainer, AttentionPass, Block
from contrex.explain.forward import capture
from contrex.explain.forward.capture import FULL_PRECISION, Pass
from contrex.explain.options import About
from contrex.models.beside import about, call
from contrex.models.classifier import Classifier
from contrex.models.layers import Reshape
from contrex.ops.scores import Question


class LeGrad(AttentionExplainer):
    """`mean_l mean_{h,i} ReLU(dS_l/dW_l)`: where more attention would raise the score of each layer (section 3).

    `S_l` is what the classifier would say of the mean of the tokens behind block l: the score of the rest of the
    network, from the last block on, with that mean in the place of every token. Its gradient goes back to the attention
    `W_l` of that very block, is rectified, and averaged over the heads h, the tokens i that attend, and the blocks;
    `num_blocks` takes so many of the last ones, None all.

    The ReLU makes it not linear in the score, so a contrast is the difference of the classes' maps: forward passes are
    shared, and each class costs a backward pass through the upper part of every block.

    Deviations: raw, where the paper stretches the map to [0, 1] and the published code sums the blocks, the last two by
    default. That code also explains networks by the attention of their pooling (CoCa, SigLIP), with a correction by an
    empty text; these are refused.

    Raises:
        ArgumentError: `num_blocks` is below 1.
        LayerError: no attention among all tokens, or no chain of blocks with one attention in each.
    """

    name = "legrad"
    unit = "slope of the {score}"
    is_linear = False
    is_differentiable = False

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        reshape: Reshape | None = None,
        num_blocks: int | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, reshape=reshape, **about)
        if num_blocks is not None and num_blocks < 1:
            raise ArgumentError(f"`num_blocks` must be at least 1, the last one, or None for all; got {num_blocks}.")
        self._num_blocks = num_blocks

    @contextlib.contextmanager
    def _watched(self, weights: Sequence[Tensor]) -> Iterator[Sequence[Block]]:
        found: dict[int, Block] = {}
        begun: list[int] = []
        owner = threading.get_ident()

        # Both are set on every module: those between whose beginning and end one attention ran are in question, and the
        # outermost of them ends last.
        def begin(module: nn.Module, inputs: object) -> None:
            if threading.get_ident() == owner:
                begun.append(len(weights))

        def end(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if threading.get_ident() != owner:
                return
            number, tokens = begun.pop(), output[0] if isinstance(output, tuple) and output else output
            if len(weights) == number + 1 and isinstance(tokens, Tensor) and tokens.ndim == 3:
                found[number] = Block(module, inputs[0] if inputs else None, tokens)

        blocks: list[Block] = []
        modules = list(self.model.modules())
        with capture.hooked(modules, begin, before=True), capture.hooked(modules, end):
            yield blocks
        blocks += [found[number] for number in sorted(found)]

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        assert isinstance(run, AttentionPass)
        _check_chain(run, self.model)
        some = slice(None if self._num_blocks is None else -self._num_blocks, None)
        blocks, attention = run.blocks[some], run.attention[some]
        means, logits = self._scored(run, blocks)
        rows = [question.cotangents(own.detach()) for own in logits]
        maps = []
        for index in range(question.rows.shape[1]):
            # One backward pass through the rest for all blocks, whose means are independent of each other.
            pulled = torch.autograd.grad(logits, means, [row[:, index] for row in rows], retain_graph=True)
            slopes = [_slope(*one) for one in zip(blocks, attention, pulled, strict=True)]
            maps.append(self._placed(run, torch.stack([slope.relu().mean((1, 2)) for slope in slopes]).mean(0)))
        return torch.stack(maps, 1)

    def _scored(self, run: AttentionPass, blocks: Sequence[Block]) -> tuple[list[Tensor], Sequence[Tensor]]:
        """The mean tokens `[N,D]` of each block, and the logits `[N,K]` that the rest of the network gives them.

        All go through it at once, behind the last block's own tokens, in whose logits is seen that it is the rest. What
        comes before runs for a single image where the network broadcasts, else for each.
        """
        num, last, num_tokens = len(run.images), run.blocks[-1], run.attention[-1].shape[2]
        axis = _token_axis(last.tokens, run.attention[-1])
        means = [block.tokens.detach().mean(axis).requires_grad_() for block in blocks]
        with torch.enable_grad():
            shared = [mean.unsqueeze(axis).expand(last.tokens.shape) for mean in means]
            together = torch.cat([last.tokens.detach(), *shared], 1 - axis)
        images, places = run.images.detach(), list(range(num)) * (1 + len(blocks))
        for pixels, owners in ((images[:1], [0]), (images.repeat(1 + len(blocks), 1, 1, 1), places)):
            # whatever a network raises whose batch axes do not agree
            with contextlib.suppress(Exception), about(owners):
                own, *logits = _rest(self.model, pixels, last, together, len(places)).view(-1, *run.logits.shape)
                tolerance = 1e-3 if together.dtype in FULL_PRECISION else 5e-2
                if torch.allclose(own, run.logits, tolerance, tolerance, equal_nan=True):
                    return means, logits
        raise LayerError(
            f"LeGrad cannot explain {type(self.model).__name__}: what follows its last block of {num_tokens} tokens "
            "needs more than these tokens. Use GradientAttentionRollout."
        )


def _check_chain(run: AttentionPass, model: nn.Module) -> None:
    """Refuse a pass whose attention is not in blocks, each of which goes on with what the one before gave."""
    blocks = run.blocks
    is_chain = all(one.tokens is following.source for one, following in itertools.pairwise(blocks))
    if len(blocks) != len(run.attention) or not is_chain:
        raise LayerError(
            f"LeGrad cannot explain {type(model).__name__}: its {len(run.attention)} attentions are not in blocks that "
            "go on with each other's tokens. Use GradientAttentionRollout."
        )


def _rest(model: nn.Module, images: Tensor, last: Block, tokens: Tensor, num: int) -> Tensor:
    """The logits `[num,K]` when the last block gives `tokens`, in a graph that begins with them."""

    def give(output: object) -> object:
        # Switched on here, in the middle of the pass: nothing before is recorded. It is off again when the pass ends.
        torch.set_grad_enabled(True)
        return (tokens.clone(), *output[1:]) if isinstance(output, tuple) else tokens.clone()

    with torch.no_grad(), capture.exchanged([last.module], give):
        return capture.read_output(call(model, images.clone()), model, tokens.new_empty(num))


def _slope(block: Block, weights: Tensor, pulled: Tensor) -> Tensor:
    """`dS/dW` `[N,h,T,T]`, float32 or better, of a block whose mean token has the gradient `pulled` [N,D]."""
    tokens, axis = block.tokens, _token_axis(block.tokens, weights)
    shared = (pulled / weights.shape[2]).unsqueeze(axis).expand(tokens.shape).to(tokens.dtype)
    (slope,) = torch.autograd.grad(tokens, weights, shared, retain_graph=True)
    return slope.to(torch.promote_types(slope.dtype, torch.float32))


def _token_axis(tokens: Tensor, weights: Tensor) -> int:
    """The axis of T in tokens `[N,T,D]` or `[T,N,D]`, whose attention is `[N,h,T,T]`."""
    num, num_tokens = len(weights), weights.shape[2]
    if num != num_tokens:
        return 1 if tokens.shape[:2] == (num, num_tokens) else 0
    # As many images as tokens: the first of either is told by whose attention it depends on.
    (gradient,) = torch.autograd.grad(tokens[0].sum(), weights, retain_graph=True)
    return 1 if not bool(gradient[1:].any()) else 0
