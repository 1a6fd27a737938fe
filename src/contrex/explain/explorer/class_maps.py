"""The maps of many classes of one picture from one forward pass: all that any contrast of a linear method is made of.

A score is a row of weights over the classes, and a method that is linear in the score gives the same weighted sum of
the classes' maps. So where every class has its map, each contrast is a subtraction. Where a map costs a backward pass,
the most probable classes have one, and all the others together have two: their mean, and the mean weighted by their
probabilities. With these the contrasts with the mean, and with the weighted others, stay exact.

Legend: Z classes, M of them with a map, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from contrex.errors import LayerError
from contrex.explain import combined
from contrex.explain.asked import Asked
from contrex.explain.checked import finite
from contrex.explain.explainer import ActivationExplainer, Explainer, LayerExplainer, kept_of
from contrex.explain.explanation import Explanation
from contrex.explain.forward import diagnosis
from contrex.explain.forward.capture import Pass
from contrex.models.split import classifier_head
from contrex.ops import scores
from contrex.ops.likeness import rounding_scale
from contrex.ops.scores import Question

COSTLY = 20
"""How many classes have a map where each costs a backward pass."""

AT_ONCE = 50
"""Rows that are asked together: of a closed form each takes as much memory as the activation."""

FINEST = 32
"""Rows and columns of a map on the page; those of larger maps, which are of pixels, are averaged."""

ROUNDING = 1e-3
"""How far sums of cells may be off the logits, as a share of the largest, and still be told as equal to them."""


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Maps `[M,h,w]` of `classes` of one picture (None: of all), with the `logits` [Z] of its classes.

    `rest` has the maps of the mean and of the weighted mean of the classes without a map; it is empty where there are
    none, or where the method is not linear in the score. `about` is the front door's explanation of the first class.
    `size` are the rows and columns that the method gave, if the maps are averages of them. A `total` is the sum of the
    cells times `factor`, and together with `adds` it is the logit.
    """

    maps: NDArray[np.float32]
    rest: NDArray[np.float32]
    classes: Sequence[int] | None
    logits: NDArray[np.float32]
    about: Explanation
    is_linear: bool
    is_class_specific: bool
    size: tuple[int, int] | None = None
    factor: float = 1.0
    adds: str | None = None
    """What is to be added to a total to give the logit: "nothing", the "bias" of the class; None: neither is true."""


def class_maps(
    explain: Explainer,
    image: Tensor,
    wanted: Sequence[int],
    *,
    task: str | None = None,
    most: int,
    cells: int,
    costly: int = COSTLY,
) -> ClassMaps:
    """The maps of classes of one picture `image` [1,C,H,W], the first of `wanted`, which lists all classes.

    There are at most `most`, and at most as many as have `cells` numbers together, but two in any case; where each
    costs a backward pass at most `costly`. Errors as in a call of the explainer.
    """
    with explain._started(image, None, differentiable=False) as checked:
        run = replace(explain._forward(checked, differentiable=False), is_shared=True)
        asked = Asked.of(explain.names, run.logits, None, "logit", task)
        logits = scores.class_logits(run.logits.detach(), asked.task)
        one_hot = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        diagnosis.check_scores(run.images, run.logits, Question(one_hot[None, list(wanted[:1])], task=asked.task))
        grid = explain.grid if isinstance(explain, LayerExplainer) else None
        num = min(most, max(2, cells // _area(_shown(grid or image.shape[2:]))), len(wanted))
        if not _is_cheap(explain, run, one_hot[None, :1]):
            num = min(num, costly)
        classes = list(wanted[: num if explain.is_class_specific else 1])
        if len(classes) == len(wanted):
            classes.sort()  # a page without a list of classes has them in their order
        rows = one_hot[classes]
        if explain.is_linear and explain.is_class_specific and len(classes) < len(wanted):
            rows = torch.cat([rows, _rest_rows(logits[0], classes)])
        found = _maps_of(explain, run, rows, asked.task)
        maps, rest = found[: len(classes)], found[len(classes) :]
        known = kept_of(explain, asked)
    values, bare = logits[0].float().cpu().numpy(), run.logits.detach().cpu()
    about = Explanation(maps[:1], bare, torch.tensor(classes[:1]), **known)
    factor, adds = _sums_to(maps.numpy(), values[classes], _biases(explain, asked.task, len(values), classes))
    shown, made = _shown(maps.shape[1:]), (maps.shape[1], maps.shape[2])
    return ClassMaps(
        _averaged(maps),
        _averaged(rest),
        None if len(classes) == len(wanted) else classes,
        values,
        about,
        explain.is_linear,
        explain.is_class_specific,
        None if shown == made else made,
        factor * _area(made) / _area(shown),
        adds,
    )


def _shown(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns on the page of a map with this shape."""
    return min(shape[0], FINEST), min(shape[1], FINEST)


def _area(shape: Sequence[int]) -> int:
    return shape[0] * shape[1]


def _maps_of(explain: Explainer, run: Pass, rows: Tensor, task: str) -> Tensor:
    """The finite maps `[M,h,w]` of the scores that `rows` [M,Z] weigh, on the CPU."""

    def answer(explain: Explainer, run: Pass) -> Tensor:
        shared = replace(run, is_shared=True)
        asked = (Question(some[None], task=task) for some in torch.split(rows, AT_ONCE))
        return torch.cat([combined.maps_of(explain, shared, one, differentiable=False).detach() for one in asked], 1)

    return finite(combined.averaged(explain, run, answer, differentiable=False))[0].float().cpu()


def _is_cheap(explain: Explainer, run: Pass, rows: Tensor) -> bool:
    """Whether all classes together cost no more than one: the closed form holds."""
    if not isinstance(explain, ActivationExplainer) or explain.fuse is not None or rows.shape[2] != run.logits.shape[1]:
        return False
    linear: nn.Linear | None = explain._head.linear(run, run.features[0], rows)
    return linear is not None


def _rest_rows(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Rows [2,Z] of the mean of all classes but `classes`, and of their mean weighted by the probabilities."""
    others = torch.ones_like(logits, dtype=torch.bool)
    others[list(classes)] = False
    return torch.stack([others.to(logits) / others.sum(), logits.where(others, float("-inf")).softmax(0)])


def _biases(explain: Explainer, task: str, num: int, classes: Sequence[int]) -> NDArray[np.float32] | None:
    """The biases of `classes` in the linear layer at the model's end; None where it has none."""
    try:
        bias: Tensor | None = classifier_head(explain.model)[1].bias
    except LayerError:
        return None
    if bias is None:
        return None
    biases: NDArray[np.float32] = scores.class_logits(bias.detach()[None], task)[0].float().cpu().numpy()
    return biases[list(classes)] if len(biases) == num else None


def _sums_to(
    maps: NDArray[np.float32], logits: NDArray[np.float32], biases: NDArray[np.float32] | None
) -> tuple[float, str | None]:
    """By what a map's sum is multiplied, and what is added to it, to give the logit of each class, seen in the numbers:
    a formula would have to know each method on each network."""
    close = ROUNDING * rounding_scale(torch.from_numpy(logits)).numpy()
    for factor in (1.0, 1.0 / (maps.shape[1] * maps.shape[2])):
        lacking = logits - factor * maps.sum((1, 2), dtype=np.float64)
        if (np.abs(lacking) <= close).all():
            return factor, "nothing"
        if biases is not None and (np.abs(lacking - biases) <= close).all():
            return factor, "bias"
    return 1.0, None


def _averaged(maps: Tensor) -> NDArray[np.float32]:
    shown = _shown(maps.shape[1:])
    averaged: NDArray[np.float32] = (
        F.adaptive_avg_pool2d(maps, shown) if len(maps) else maps.new_zeros(0, *shown)
    ).numpy()
    return averaged
