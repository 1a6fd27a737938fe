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
    several foils    y_t - logsumexp_{s in F} y_s      phi_t - sum_{s in F} a_s phi_s,  a = softmax over F

The weighted contrast is written as the log-odds of p_t, which keeps its gradient when p_t -> 1, where the factor
p_t (1 - p_t) of the probability underflows.

Legend: N images, K classes; `logits` is [N,K], `target` and `foil` int64 [N]; every score is [N] and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name

Target = None | int | Sequence[int] | Tensor
Foils = int | Sequence[int] | Sequence[Sequence[int]] | Tensor
Contrast = None | str | Foils


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
    """The score `[N]` that a front-door call asks for: the logit, a contrast by name, or a contrast with foil classes.

    Several foils are a weighted contrast among them: `y_t - logsumexp_{s in foils} y_s`.

    Raises:
        UnknownNameError: `contrast` is a name that does not exist.
        ArgumentError: there is one class only, or a foil is the target or out of range.

    >>> score(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), contrast="mean")
    tensor([1.5000])
    """
    if contrast is None:
        return logit(logits, target)
    rivals = _rivals(logits, target, contrast)
    if isinstance(contrast, str):
        return CONTRASTS[contrast](logits, target)
    return logit(logits, target) - logits.where(rivals, float("-inf")).logsumexp(1)


def cotangent(logits: Tensor, target: Tensor, contrast: Contrast = None) -> Tensor:
    """`dS/dy` `[N,K]`: the row that turns one backward pass into the explanation of any score (Proposition 3).

    1 at the target, minus what each other class weighs in the contrast. It is written out rather than differentiated,
    so it costs no backward pass; the weights of the weighted contrast are a function of the logits, and a loss on the
    explanation sees through them. Errors as in `score`.
    """
    one_hot = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
    if contrast is None:
        return one_hot
    rivals = _rivals(logits, target, contrast)
    if isinstance(contrast, str) and contrast == "mean":
        return one_hot - rivals.to(logits) / rivals.sum(1, keepdim=True)
    return one_hot - logits.where(rivals, float("-inf")).softmax(1)


def weighed(rows: Tensor, outputs: Tensor) -> Tensor:
    """`rows [...,M,K] @ outputs [...,n,K]^T`, `[...,M,n]`, in which 0 times anything is 0: a class that a row does not
    weigh may be masked by -inf. NaN where one that it weighs is not finite.

    >>> weighed(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, -torch.inf]]))
    tensor([[2.],
            [nan]])
    """
    finite = outputs.isfinite()
    lost = (rows != 0).to(rows) @ (~finite).to(rows).mT > 0
    return (rows @ outputs.where(finite, 0).mT).masked_fill(lost, torch.nan)


SCORES = ("logit", "probability", "log_probability")


@dataclass(frozen=True, eq=False)
class Question:
    """What is explained: for each image M weighted sums `sum_k rows_nmk f_k(y)` over the classes.

    `rows` is [N,M,K]; f is the identity, softmax or log-softmax, by the `score`'s name. The weights are fixed, so a
    method that asks again at other points (noisy, masked or interpolated images) asks the same question everywhere.
    """

    rows: Tensor
    score: str = "logit"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise unknown_name("`score`", self.score, SCORES)

    def values(self, logits: Tensor) -> Tensor:
        """The scores `[N,M]` at these logits [N,K]."""
        return weighed(self.rows, self.outputs(logits)[:, None])[..., 0]

    def outputs(self, logits: Tensor) -> Tensor:
        """`f(y)`, `[...,K]`."""
        if self.score == "probability":
            return logits.softmax(-1)
        return logits.log_softmax(-1) if self.score == "log_probability" else logits

    def cotangents(self, logits: Tensor) -> Tensor:
        """`dS/dy` `[N,M,K]`: the rows pulled back through f at these logits."""
        if self.score == "logit":
            return self.rows
        p = logits.softmax(1)[:, None]
        if self.score == "log_probability":
            return self.rows - self.rows.sum(-1, keepdim=True) * p
        return p * (self.rows - (self.rows * p).sum(-1, keepdim=True))


def _rivals(logits: Tensor, target: Tensor, contrast: str | Foils) -> Tensor:
    """The classes, boolean `[N,K]`, that a contrast sets against the target."""
    if logits.shape[1] < 2:
        raise ArgumentError(
            f"`contrast` needs at least two classes, the model has {logits.shape[1]}: pass contrast=None."
        )
    if isinstance(contrast, str):
        if contrast not in CONTRASTS:
            raise unknown_name("`contrast`", contrast, CONTRASTS)
        foils = _without_target(logits, target).argmax(1)[:, None] if contrast == "max" else None
    else:
        foils = _foils(contrast, logits, target)
    nothing = torch.zeros_like(logits, dtype=torch.bool)
    return nothing.scatter(1, target[:, None], True).logical_not() if foils is None else nothing.scatter(1, foils, True)


def _foils(contrast: Foils, logits: Tensor, target: Tensor) -> Tensor:
    """Foil classes `[N,F]`, none of them the target."""
    many = _integers(contrast, logits, "contrast")
    if many.ndim == 2 and many.shape[1] and len(many) in (1, len(logits)):
        columns = many.expand(len(logits), -1).unbind(1)
        foils = torch.stack([class_indices(column, logits, name="contrast") for column in columns], 1)
    else:
        foils = class_indices(many, logits, name="contrast")[:, None]
    same = (foils == target[:, None]).any(1)
    if bool(same.any()):
        image = int(same.nonzero()[0])
        raise ArgumentError(
            f"`contrast` must differ from `target`, both are class {int(target[image])} for image {image}: "
            "name another class or pass contrast='weighted'."
        )
    return foils


def class_indices(value: Target, logits: Tensor, *, name: str = "target") -> Tensor:
    """The classes `[N]` that `value` means for these logits: None is the top prediction, an int stands for all images.

    Raises:
        ArgumentError: the length is not N, the type is not integral, or a class is out of range.
    """
    num_images, num_classes = logits.shape
    if value is None:
        return logits.detach().argmax(1)
    indices = _integers(value, logits, name)
    if indices.ndim > 1 or (indices.ndim == 1 and len(indices) != num_images):
        raise ArgumentError(
            f"`{name}` must be one class or one per image, [{num_images}]; got shape {list(indices.shape)} "
            f"for {num_images} image(s)."
        )
    if indices.numel() and not bool(((indices >= 0) & (indices < num_classes)).all()):
        wrong = indices[(indices < 0) | (indices >= num_classes)].flatten()[0].item()
        raise ArgumentError(f"`{name}` must be between 0 and {num_classes - 1}, the model's classes; got {wrong}.")
    return indices.long().expand(num_images)


def many_classes(classes: object, logits: Tensor, k: int) -> Tensor:
    """Classes `[N,M]`: the `k` with the largest logits, or those that `classes` names, for all images or for each.

    Raises:
        ArgumentError: `k` is not between 1 and K, or `classes` does not fit.
    """
    num_images, num_classes = logits.shape
    if classes is None:
        if not 1 <= k <= num_classes:
            raise ArgumentError(f"`k` must be between 1 and {num_classes}, the model's classes; got {k}.")
        return logits.detach().topk(k, dim=1).indices
    many = _integers(classes, logits, "classes")
    many = many[None] if many.ndim == 1 else many
    if many.ndim != 2 or not many.numel() or len(many) not in (1, num_images):
        raise ArgumentError(f"`classes` must be [M], or [{num_images},M]; got shape {list(many.shape)}.")
    columns = many.expand(num_images, -1).unbind(1)
    return torch.stack([class_indices(column, logits, name="classes") for column in columns], 1)


def _integers(value: object, logits: Tensor, name: str) -> Tensor:
    try:
        indices = torch.as_tensor(value, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"`{name}` must hold class indices (integers), got {value!r}.") from None
    if indices.is_inference():
        indices = indices.clone()
    if indices.is_floating_point() or indices.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise ArgumentError(f"`{name}` must hold class indices (integers), got {indices.dtype}.")
    return indices


def _without_target(logits: Tensor, target: Tensor) -> Tensor:
    return logits.scatter(1, target[:, None], float("-inf"))
