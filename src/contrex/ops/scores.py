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
    nearest          y_t - sum_{s in F} a_s y_s        phi_t - sum_{s in F} a_s (1 + y_s - sum_j a_j y_j) phi_s

For the nearest contrast (Finer-CAM, CVPR 2025), F are the k classes whose logits are nearest to the target's, and a is
the softmax over F. Any named contrast may have a strength c, which multiplies all that is behind the minus sign:
"weighted(strength=0.5)", "nearest(k=3, alpha=0.6)". So it goes on a straight line from the plain score (0) over the
contrast (1) to beyond it.

The weighted contrast is written as the log-odds of p_t, which keeps its gradient when p_t -> 1, where the factor
p_t (1 - p_t) of the probability underflows.

What p is, the `task` says, in torchmetrics' words: "multiclass", a softmax over K >= 2 logits; "binary", one logit y
and two classes; "multilabel", K sigmoids, one per label. None is binary for one logit and multiclass for more. Each
class has a class logit z, of which the last two take the sigmoid:

    binary           z = (-y, y), p = sigmoid(z), which is the softmax over (0, y); every contrast is z_t
    multilabel       z = y,       p = sigmoid(z); the weighted contrast is y_t, all others are as above

So the weighted contrast is the log-odds of p_t in all three. A strength changes neither y_t nor, of one logit, z_t.

Legend: N images, K logits, Z classes (2 if binary, else K); `logits` is [N,K], `target` and `foil` int64 [N]; every
score is [N] and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.settings import Task
from contrex.settings.contrast import NUM_NEAREST, read_contrast

Target = None | int | Sequence[int] | Tensor
Foils = int | Sequence[int] | Sequence[Sequence[int]] | Tensor
Contrast = None | str | Foils


TASKS: tuple[str, ...] = get_args(Task)


ALONE = "score"
"""The task of a network that has no classes: each of its numbers is a score of its own, such as a similarity. A
contrast is the difference of two."""


def task_of(logits: Tensor, task: str | None = None) -> str:
    """What the logits `[...,K]` are: `task` where it is named, else "binary" for one and "multiclass" for more.

    Raises:
        UnknownNameError: there is no such task.
        ArgumentError: the number of logits does not fit it.
    """
    num = logits.shape[-1]
    if task is None:
        return "binary" if num == 1 else "multiclass"
    if task == ALONE:
        return task
    if task not in TASKS:
        raise unknown_name("`task`", task, TASKS)
    if task == "multiclass" and num == 1:
        raise ArgumentError(
            "`task` 'multiclass' needs at least two logits, the model has 1, whose softmax is always 1: pass "
            "task='binary', or None."
        )
    if task == "binary" and num != 1:
        raise ArgumentError(
            f"`task` 'binary' needs one logit, the model has {num}: pass task='multiclass' for a softmax over them, or "
            "'multilabel' for a sigmoid each."
        )
    return task


def class_logits(logits: Tensor, task: str | None = None) -> Tensor:
    """What speaks for each class, `z` `[...,Z]`: `(-y, y)` of one logit, else the logits themselves.

    >>> class_logits(torch.tensor([[3.0], [-1.0]]))
    tensor([[-3.,  3.],
            [ 1., -1.]])
    """
    return torch.cat([-logits, logits], -1) if task_of(logits, task) == "binary" else logits


def probabilities(logits: Tensor, task: str | None = None) -> Tensor:
    """The probabilities `p` `[...,Z]`: a softmax of several logits, sigmoids of both sides of one, or of each label.

    Raises:
        ArgumentError: there are no classes.
    """
    task = task_of(logits, task)
    if task == ALONE:
        raise ArgumentError("`probability` needs classes, and what is explained is a score without: read its value.")
    return logits.softmax(-1) if task == "multiclass" else class_logits(logits, task).sigmoid()


def log_probabilities(logits: Tensor, task: str | None = None) -> Tensor:
    """The logarithms of the probabilities, `log p` `[...,Z]`, finite also where p underflows."""
    task = task_of(logits, task)
    return logits.log_softmax(-1) if task == "multiclass" else F.logsigmoid(class_logits(logits, task))


def logit(logits: Tensor, target: Tensor, task: str | None = None) -> Tensor:
    """The logit of the target, `z_t`: the ordinary score without contrast, `y_t` where there are several logits."""
    return _at(class_logits(logits, task), target)


def probability(logits: Tensor, target: Tensor, task: str | None = None) -> Tensor:
    """The probability of the target, `p_t`; its gradient vanishes for confident predictions."""
    return _at(probabilities(logits, task), target)


def log_probability(logits: Tensor, target: Tensor, task: str | None = None) -> Tensor:
    """The logarithm of the probability of the target, `log p_t`."""
    return _at(log_probabilities(logits, task), target)


def mean_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """The target against the mean of the others, `y_t - mean_{s != t} y_s`; of one logit, see `score`."""
    own = _at(_several(logits), target)
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)


def max_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """The target against the strongest other class, `y_t - max_{s != t} y_s`; of one logit, see `score`."""
    foil = _without_target(_several(logits).detach(), target).argmax(1)
    return pair_contrast(logits, target, foil)


def weighted_contrast(logits: Tensor, target: Tensor) -> Tensor:
    """The target against all others, `y_t - logsumexp_{s != t} y_s`, the log-odds of `p_t`: each of them weighs as much
    as it competes. Of one logit, see `score`."""
    return _at(_several(logits), target) - _without_target(logits, target).logsumexp(1)


def pair_contrast(logits: Tensor, target: Tensor, foil: Tensor) -> Tensor:
    """The target against one other class, `y_t - y_s`: why `target` rather than `foil`. Of one logit, see `score`."""
    return _at(_several(logits), target) - _at(logits, foil)


def nearest_contrast(logits: Tensor, target: Tensor, k: int = NUM_NEAREST) -> Tensor:
    """The target against the k classes nearest to it, `y_t - sum_s a_s y_s`, `a` the softmax over these: Finer-CAM's
    score with alpha = 1. Of one logit, see `score`.

    Source: Zhang et al., "Finer-CAM", CVPR 2025, and its code: the classes with the smallest `|y_s - y_t|`, weighted by
    probability. As in that code, and in pytorch-grad-cam's, the gradient runs through the weights too: that of y_s is
    `-a_s (1 + y_s - sum_j a_j y_j)`.

    *Deviations*: of equally near classes the first are taken; all others where there are fewer than k; and the weights
    sum to 1 also where the classes are improbable, while the code divides by the sum of their probabilities + 1e-9.
    """
    near = logits.gather(1, nearest_classes(logits, target, k))
    shares = near.softmax(1)
    return _at(logits, target) - (shares * _finite(near, shares)).sum(1)


def nearest_classes(logits: Tensor, target: Tensor, k: int = NUM_NEAREST) -> Tensor:
    """The k classes `[N,k]` whose logits are nearest to the target's, nearest first; all others where there are fewer
    than k."""
    distance = (_several(logits).detach() - _at(logits.detach(), target)[:, None]).abs()
    # The target comes last, behind classes that are masked by -inf: they are as far away as a number can be.
    most = torch.finfo(distance.dtype).max
    distance = distance.nan_to_num(nan=most, posinf=most).scatter(1, target[:, None], torch.inf)
    return distance.sort(dim=1, stable=True).indices[:, :-1][:, :k]


def _finite(logits: Tensor, shares: Tensor) -> Tensor:
    """The logits with 0 where a class has no share: 0 times -inf would be NaN."""
    return logits.where(shares != 0, 0)


CONTRASTS: dict[str, Callable[..., Tensor]] = {
    "mean": mean_contrast,
    "max": max_contrast,
    "weighted": weighted_contrast,
    "nearest": nearest_contrast,
}
"""Those that have a name, with which `contrex.settings.contrast` reads options."""


def score(logits: Tensor, target: Tensor, contrast: Contrast = None, task: str | None = None) -> Tensor:
    """The score `[N]` that a front-door call asks for: the logit, a contrast by name, or a contrast with foil classes.

    Several foils are a weighted contrast among them: `y_t - logsumexp_{s in foils} y_s`. One logit is compared with the
    0 of the softmax over (0, y), so all its contrasts are `z_t`. Labels do not compete: the weighted contrast, the
    log-odds of `p_t`, is `y_t` itself. Named contrasts may have options: "mean(strength=0.5)", "nearest(k=5, alpha=2)".

    Raises:
        UnknownNameError: `contrast` is a name that does not exist.
        ArgumentError: there is one class only, or a foil is the target or out of range, `task` does not fit, or an
            option of a named contrast.

    >>> score(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), contrast="mean")
    tensor([1.5000])
    >>> score(torch.tensor([[2.0]]), torch.tensor([0]), contrast="mean")
    tensor([-2.])
    """
    task, z = task_of(logits, task), class_logits(logits, task)
    if _is_bare(contrast, task):
        return _at(z, target)
    rivals = _rivals(z, target, contrast)
    if task == "binary":
        return _at(z, target)
    if isinstance(contrast, str):
        asked = read_contrast(contrast)
        whole = CONTRASTS[asked.name](z, target, **({"k": asked.k} if asked.name == "nearest" else {}))
        return whole if asked.strength == 1 else torch.lerp(_at(z, target), whole, asked.strength)
    return _at(z, target) - z.where(rivals, float("-inf")).logsumexp(1)


def class_weights(
    logits: Tensor, target: Tensor, contrast: Contrast = None, task: str | None = None, *, score: str = "logit"
) -> Tensor:
    """The weights of the classes `[N,Z]`, 1 of the target and less than 0 of its rivals: a row of a `Question`.

    They are the derivative of the score; of the nearest contrast, a class far below the others can so have a weight
    above 0. For `score="probability"` and its logarithm, where they are no derivative, its rivals have `-a_s`.
    The weights of the weighted and the nearest contrast are functions of the logits, and a loss on the explanation sees
    through them.
    The two class logits of one logit are each other's negative, and their contrast z_t is half their difference.
    Errors as in `score`.
    """
    task, z = task_of(logits, task), class_logits(logits, task)
    one_hot = torch.zeros_like(z).scatter(1, target[:, None], 1.0)
    if _is_bare(contrast, task):
        return one_hot
    rivals = _rivals(z, target, contrast)
    asked = read_contrast(contrast) if isinstance(contrast, str) else None
    if asked and asked.name == "mean":
        weights = one_hot - rivals.to(z) / rivals.sum(1, keepdim=True)
    else:
        # The gradient of logsumexp is the softmax: one formula for the weighted contrast, and for one or several foils.
        shares = z.where(rivals, float("-inf")).softmax(1)
        if asked and asked.name == "nearest" and score == "logit":
            near = _finite(z, shares)
            shares = shares * (1 + near - (shares * near).sum(1, keepdim=True))
        weights = one_hot - shares
    weights = weights * contrast_scale(task, score)
    return weights if asked is None or asked.strength == 1 else torch.lerp(one_hot, weights, asked.strength)


def contrast_scale(task: str, score: str) -> float:
    """What the difference of two classes is multiplied by to give their contrast: 1, but 1/2 of `z = (-y, y)`."""
    return 0.5 if task == "binary" and score not in ("probability", "log_probability") else 1.0


def cotangent(logits: Tensor, target: Tensor, contrast: Contrast = None, task: str | None = None) -> Tensor:
    """The gradient `dS/dy` `[N,K]` that makes one backward pass the explanation of any score (Proposition 3).

    It is written out (`class_weights`) rather than differentiated, so it costs no backward pass. Errors as in `score`.
    """
    rows = class_weights(logits, target, contrast, task)[:, None]
    return Question(rows, task=task).cotangents(logits)[:, 0]


def weighed(rows: Tensor, outputs: Tensor) -> Tensor:
    """`rows [...,M,K] @ outputs [...,n,K]^T`, `[...,M,n]`, in which 0 times anything is 0: a class that a row does not
    weigh may be masked by -inf. NaN where one that it weighs is not finite.

    >>> weighed(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, -torch.inf]]))
    tensor([[2.],
            [nan]])
    """
    finite = outputs.isfinite()
    # A product of matrices would make NaN of 0 times infinity, so what is not finite is counted apart.
    lost = (rows != 0).to(rows) @ (~finite).to(rows).mT > 0
    return (rows @ outputs.where(finite, 0).mT).masked_fill(lost, torch.nan)


OUTPUTS: dict[str, Callable[[Tensor, str | None], Tensor]] = {
    "logit": class_logits,
    "probability": probabilities,
    "log_probability": log_probabilities,
}
SCORES = tuple(OUTPUTS)


@dataclass(frozen=True, eq=False)
class Question:
    """What is explained: for each image M weighted sums `sum_k rows_nmk f_k(y)` over the classes.

    `rows` is [N,M,Z]; f are the class logits, probabilities or their logarithms, by the `score`'s name, for the `task`
    (None: by the number of logits). The weights are fixed, so a method that asks again at other points (noisy, masked
    or interpolated images) asks the same question everywhere.
    """

    rows: Tensor
    score: str = "logit"
    task: str | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise unknown_name("`score`", self.score, SCORES)

    def values(self, logits: Tensor) -> Tensor:
        """The scores `[N,M]` at these logits [N,K]."""
        return weighed(self.rows, self.outputs(logits)[:, None])[..., 0]

    def outputs(self, logits: Tensor) -> Tensor:
        """What is weighed of each class, `f(y)` `[...,Z]`, at logits `[...,K]`."""
        return OUTPUTS[self.score](logits, self.task)

    def cotangents(self, logits: Tensor) -> Tensor:
        """The gradients `dS/dy` `[N,M,K]` of the scores at these logits: the rows pulled back through f."""
        task = task_of(logits, self.task)
        pulled = self._at_softmax(logits) if task == "multiclass" else self._at_sigmoids(class_logits(logits, task))
        # z = (-y, y), so dS/dy = dS/dz_1 - dS/dz_0.
        return pulled[..., 1:] - pulled[..., :1] if task == "binary" else pulled

    def _at_softmax(self, logits: Tensor) -> Tensor:
        if self.score == "logit":
            return self.rows
        # (log p)' = I - 1 p^T and p' = diag(p) - p p^T, multiplied with the rows without making K x K matrices.
        p = logits.softmax(1)[:, None]
        if self.score == "log_probability":
            return self.rows - self.rows.sum(-1, keepdim=True) * p
        return p * (self.rows - (self.rows * p).sum(-1, keepdim=True))

    def _at_sigmoids(self, z: Tensor) -> Tensor:
        """The rows pulled back through sigmoids, `[N,M,Z]`: `p' = p (1 - p)`, `(log p)' = 1 - p = sigmoid(-z)`."""
        if self.score == "logit":
            return self.rows
        slope = (-z).sigmoid() if self.score == "log_probability" else z.sigmoid() * (-z).sigmoid()
        return self.rows * slope[:, None]


def _is_bare(contrast: Contrast, task: str) -> bool:
    """Whether nothing is set against the target: there is no contrast, or it is the weighted one of labels."""
    if contrast is None or not isinstance(contrast, str):
        return contrast is None
    return read_contrast(contrast).name == "weighted" and task == "multilabel"


def _rivals(logits: Tensor, target: Tensor, contrast: Contrast) -> Tensor:
    """The classes, boolean `[N,Z]`, that a contrast sets against the target, for class logits `[N,Z]`."""
    assert contrast is not None
    _several(logits)
    foils = _named_foils(contrast, logits, target) if isinstance(contrast, str) else _foils(contrast, logits, target)
    nothing = torch.zeros_like(logits, dtype=torch.bool)
    return nothing.scatter(1, target[:, None], True).logical_not() if foils is None else nothing.scatter(1, foils, True)


def foil_classes(logits: Tensor, target: Tensor, contrast: Contrast, task: str | None = None) -> Tensor | None:
    """The classes `[N,F]` that a contrast names, of `"max"` the strongest, of `"nearest"` the nearest; None where they
    are all others, or none.

    Errors as in `score`.
    """
    if contrast is None:
        return None
    z = class_logits(logits, task)
    return _named_foils(contrast, z, target) if isinstance(contrast, str) else _foils(contrast, z, target)


def _named_foils(contrast: str, logits: Tensor, target: Tensor) -> Tensor | None:
    asked = read_contrast(contrast)
    if asked.name == "max":
        return _without_target(_several(logits), target).argmax(1)[:, None]
    return nearest_classes(logits, target, asked.k) if asked.name == "nearest" else None


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


def predicted(logits: Tensor, task: str | None = None) -> Tensor:
    """The class `[N]` with the largest class logit, the first of equal ones; of one logit y it is 1 where y > 0."""
    return class_logits(logits.detach(), task).argmax(1)


def class_indices(value: Target, logits: Tensor, task: str | None = None, *, name: str = "target") -> Tensor:
    """The classes `[N]` that `value` means for these logits: None is the top prediction, an int stands for all images.

    Raises:
        ArgumentError: the length is not N, the type is not integral, or a class is out of range.
    """
    num_images, num_classes = class_logits(logits, task).shape
    if value is None:
        return predicted(logits, task)
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


DEFAULT_K = 5
"""Classes that are explained where nobody says how many."""

DEFAULT_THRESHOLD = 0.5
"""Labels with a larger probability count as present."""


def many_classes(
    classes: object, logits: Tensor, k: int | None, task: str | None = None, threshold: float | None = None
) -> Tensor:
    """Classes `[N,M]`: the `k` with the largest logits, or those that `classes` names, for all images or for each.

    Without `k` they are the first 5; both sides of one logit; and for `task="multilabel"` as many as the image with the
    most labels above the `threshold` (0.5) has, at least one.

    Raises:
        ArgumentError: `k` is not between 1 and Z, `classes` does not fit, or the threshold is no probability or means
            nothing to the task.
    """
    task = task_of(logits, task)
    z, num_images, least = class_logits(logits.detach(), task), len(logits), checked_threshold(threshold, task)
    if classes is None:
        if k is None and task == "multilabel":
            k = max(1, int((probabilities(z, task) > least).sum(1).max()))
        if k is None:
            k = 2 if task == "binary" else DEFAULT_K
        if not 1 <= k <= z.shape[1]:
            raise ArgumentError(f"`k` must be between 1 and {z.shape[1]}, the model's classes; got {k}.")
        # Stable, unlike `topk`: of equal logits the lower class comes first, on every device.
        return z.sort(dim=1, descending=True, stable=True).indices[:, :k]
    many = _integers(classes, logits, "classes")
    many = many[None] if many.ndim == 1 else many
    if many.ndim != 2 or not many.numel() or len(many) not in (1, num_images):
        raise ArgumentError(f"`classes` must be [M], or [{num_images},M]; got shape {list(many.shape)}.")
    columns = many.expand(num_images, -1).unbind(1)
    return torch.stack([class_indices(column, logits, task, name="classes") for column in columns], 1)


def checked_threshold(threshold: float | None, task: str) -> float:
    """The threshold, 0.5 without one; `ArgumentError` where it is no probability or the task has no use for it."""
    if threshold is None:
        return DEFAULT_THRESHOLD
    if task != "multilabel":
        raise ArgumentError(
            f"`threshold` says which labels are present, the task is {task!r}: pass task='multilabel' or leave it out."
        )
    if not 0 <= threshold < 1:
        raise ArgumentError(f"`threshold` must be a probability in 0..1, below 1, got {threshold}: 0.5 is usual.")
    return threshold


def _integers(value: object, logits: Tensor, name: str) -> Tensor:
    try:
        indices = torch.as_tensor(value, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"`{name}` must hold class indices (integers), got {value!r}.") from None
    # A tensor of inference mode cannot be saved for a backward pass.
    if indices.is_inference():
        indices = indices.clone()
    if indices.is_floating_point() or indices.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise ArgumentError(f"`{name}` must hold class indices (integers), got {indices.dtype}.")
    return indices


def _at(values: Tensor, target: Tensor) -> Tensor:
    """The values of the targets, `[N]` of `[N,Z]`."""
    return values.gather(1, target[:, None])[:, 0]


def _several(logits: Tensor) -> Tensor:
    """The logits, or an error where there is only one, and nothing to set against a class."""
    if logits.shape[1] < 2:
        raise ArgumentError(
            f"`contrast` needs at least two classes, the model has {logits.shape[1]}: pass contrast=None."
        )
    return logits


def _without_target(logits: Tensor, target: Tensor) -> Tensor:
    return logits.scatter(1, target[:, None], float("-inf"))
