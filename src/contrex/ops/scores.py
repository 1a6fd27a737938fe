"""Scores: what is explained - one number per image, made from the logits.

An explanation is the gradient (or a propagation) of a score. The plain score asks "why class t?"; a contrast asks "why
t and not the others?" ("Why Not Other Classes?", NeurIPS 2022, section 3):

    logit            y_t                               phi_t
    probability      p_t                               p_t (1 - p_t) x weighted contrast (Proposition 2)
    log-probability  log p_t                           (1 - p_t) x weighted contrast
    mean contrast    y_t - mean_{s != t} y_s           phi_t - mean_{s != t} phi_s
    max contrast     y_t - max_{s != t} y_s            phi_t - phi_{s*}
    weighted         y_t - logsumexp_{s != t} y_s      phi_t - sum_{s != t} a_s phi_s,  a = softmax over s != t
    pair contrast    y_t - y_s for a foil s            phi_t - phi_s

The weighted contrast is written as the log-odds of p_t, which keeps its gradient when p_t -> 1, where the factor
p_t (1 - p_t) of the probability underflows.

Legend: N images, K classes; `logits` is [N,K], `target` and `foil` int64 [N]; every score is [N] and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name

Target = None | int | Sequence[int] | Tensor
Contrast = None | str | int | Sequence[int] | Tensor


def logit(logits: Tensor, target: Tensor) -> Tensor:
    """`y_t`: the ordinary, non-contrastive score."""
    return logits.gather(1, target[:, None])[:, 0]


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """`p_t` of the softmax; its gradient vanishes for confident predictions."""
    return logits.softmax(1).gather(1, target[:, None])[:, 0]


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """`log p_t` of the softmax."""
    return logits.log_softmax(1).gather(1, target[:, None])[:, 0]


def mean_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """`y_t - mean_{s != t} y_s`."""
    others = logits.sum(1) - logit(logits, target)
    return logit(logits, target) - others / (logits.shape[1] - 1)


def max_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """`y_t - max_{s != t} y_s`; among equal runners-up the first is the foil."""
    foil = _without_target(logits.detach(), target).argmax(1)
    return pair_contrast(logits, target, foil)


def weighted_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """`y_t - logsumexp_{s != t} y_s`, the log-odds of `p_t`: each other class weighs as much as it competes."""
    return logit(logits, target) - _without_target(logits, target).logsumexp(1)


def pair_contrast(logits: Tensor, target: Tensor, foil: Tensor) -> Tensor:
    """`y_t - y_s`: why `target` rather than `foil`."""
    return logit(logits, target) - logit(logits, foil)


CONTRASTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_contrast,
    "max": max_contrast,
    "weighted": weighted_contrast,
}


def score(logits: Tensor, target: Tensor, contrast: Contrast = None) -> Tensor:
    """The score `[N]` that a front-door call asks for: the logit, a contrast by name, or a contrast with a foil class.

    Raises:
        UnknownNameError: `contrast` is a name that does not exist.
        ArgumentError: there is one class only, or the foil is the target or out of range.

    >>> score(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), contrast="mean")
    tensor([1.5000])
    """
    if contrast is None:
        return logit(logits, target)
    if logits.shape[1] < 2:
        raise ArgumentError(
            f"`contrast` needs at least two classes, the model has {logits.shape[1]}: pass contrast=None."
        )
    if isinstance(contrast, str):
        if contrast not in CONTRASTS:
            raise unknown_name("`contrast`", contrast, CONTRASTS)
        return CONTRASTS[contrast](logits, target)
    foil = class_indices(contrast, logits, name="contrast")
    if bool((foil == target).any()):
        image = int((foil == target).nonzero()[0])
        raise ArgumentError(
            f"`contrast` must differ from `target`, both are class {int(foil[image])} for image {image}: "
            "name another class or pass contrast='weighted'."
        )
    return pair_contrast(logits, target, foil)


def cotangent(logits: Tensor, target: Tensor, contrast: Contrast = None) -> Tensor:
    """`dS/dy` `[N,K]`: the row that turns one backward pass into the explanation of any score (Proposition 3).

    It stays a differentiable function of `logits` where the score is curved in them (the weights of the weighted
    contrast), so a loss on the explanation can see through it.
    """
    with torch.enable_grad():
        leaf = logits if logits.requires_grad else logits.detach().requires_grad_()
        (row,) = torch.autograd.grad(score(leaf, target, contrast).sum(), leaf, create_graph=logits.requires_grad)
    return row


def class_indices(value: Target, logits: Tensor, *, name: str = "target") -> Tensor:
    """The classes `[N]` that `value` means for these logits: None is the top prediction, an int stands for all images.

    Raises:
        ArgumentError: the length is not N, the type is not integral, or a class is out of range.
    """
    num_images, num_classes = logits.shape
    if value is None:
        return logits.detach().argmax(1)
    indices = torch.as_tensor(value, device=logits.device)
    if indices.is_inference():
        indices = indices.clone()
    if indices.is_floating_point() or indices.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise ArgumentError(f"`{name}` must hold class indices (integers), got {indices.dtype}.")
    if indices.ndim > 1 or (indices.ndim == 1 and len(indices) != num_images):
        raise ArgumentError(
            f"`{name}` must be one class or one per image, [{num_images}]; got shape {list(indices.shape)} "
            f"for {num_images} image(s)."
        )
    if indices.numel() and not bool(((indices >= 0) & (indices < num_classes)).all()):
        wrong = indices[(indices < 0) | (indices >= num_classes)].flatten()[0].item()
        raise ArgumentError(f"`{name}` must be between 0 and {num_classes - 1}, the model's classes; got {wrong}.")
    return indices.long().expand(num_images)


def _without_target(logits: Tensor, target: Tensor) -> Tensor:
    return logits.scatter(1, target[:, None], float("-inf"))
