"""Supervised contrastive learning (Khosla et al., NeurIPS 2020), with background images as in ExConB.

For embeddings e of unit length, with I the views of the images, B those of background images and P(i) the other views
in I of the anchor's class,

    L_i = -1/|P(i)| sum_{p in P(i)} log( exp(e_i . e_p / tau) / sum_{a in (I + B) \\ {i}} exp(e_i . e_a / tau) )

without B it is SupCon (ExCon, ICLR 2022 submission, eq. 2), with B ExConB (section 3.4): a background image is never
an anchor and never a positive. When each image is its own class it is NT-Xent, the loss of SimCLR (Chen et al., ICML
2020). With w_a the softmax over `(I + B) \\ {i}` of `e_i . e_a / tau`, the gradient with respect to the anchor is
(appendix, eq. 4 and 5)

    dL_i / de_i = 1/tau ( sum_a w_a e_a - 1/|P(i)| sum_{p in P(i)} e_p )

which is that of a loss that does not normalise: whoever makes the embeddings does (`contrex.models.ProjectionHead`).

Legend: n images, B background images, V views, D embedding, A = n V anchors, M = (n + B) V embeddings. Where several
processes share a batch, each takes the anchors of its own m <= n images: A = m V.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.losses.consistency import full_precision
from contrex.losses.inputs import Integers, integers
from contrex.ops.pairs import contrasted_pairs, positive_pairs

LENGTH_TOLERANCE = 0.01
"""How far a row's length may be from 1: rounding its elements to bfloat16 moves it by up to 0.004."""


def supcon_loss(
    features: Tensor,
    labels: Integers | None,
    *,
    temperature: float = 0.1,
    base_temperature: float | None = None,
    num_background: int = 0,
    num_anchors: int | None = None,
) -> Tensor:
    """Supervised contrastive loss, the mean of `L_i` over the anchors (ExCon, eq. 2 and section 3.4).

    Deviations: the paper sums over anchors, here as in its published code they are averaged, so that the learning rate
    means the same at any batch size. That code also multiplies by `temperature / 0.07`: pass `base_temperature=0.07`.

    Args:
        features: `[n + B,V,D]`, embeddings of unit length; the last B images are background.
        labels: integers `[n]`, a tensor or list, none for the background; None makes each image its own class (SimCLR).
        temperature: tau.
        base_temperature: where given, the loss is multiplied by `temperature / base_temperature`.
        num_background: B.
        num_anchors: m, only the first m images are anchors; the others are positives and negatives of them. None is n.

    Returns:
        A scalar >= 0 (float32 or better, also under autocast). Anchors without a positive - with one view, an image
        whose label no other has - are left out of the mean; they still stand in the denominators of others.

    Raises:
        ArgumentError: shapes do not match, a row is NaN or not of unit length, labels are no integers, a temperature is
            not positive, `num_anchors` is not in 1..n, or no anchor has a positive (one view and no label twice): there
            is nothing to learn from, and 0 would look perfect.

    >>> one, other = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> supcon_loss(torch.stack([one, other]), torch.tensor([0, 1]), temperature=1)  # log(1 + 2/e)
    tensor(0.5514)
    >>> supcon_loss(torch.stack([one, other]), torch.tensor([0]), temperature=1, num_background=1)
    tensor(0.5514)
    """
    _check_temperatures(temperature, base_temperature)
    num_images = _check_features(features, num_background)
    num_own, classes = _check_anchors(num_anchors, num_images), _classes(labels, num_images, features.device)
    positive, contrasted = _pairs(classes, num_own, features.shape[1], num_background)
    num_positives = positive.sum(1)
    if features.shape[1] == 1 and not num_positives.any():
        raise ArgumentError("no anchor has a positive: pass `features` of two views or more, or `labels` that repeat.")
    log_probs = _similarity(features, num_own, temperature).masked_fill(~contrasted, -math.inf).log_softmax(1)
    # `where`, as the anchor's own place holds -inf, which times 0 is NaN. An anchor without positives sums to 0.
    losses = -log_probs.where(positive, 0.0).sum(1) / num_positives.clamp(min=1)
    loss = losses.sum() / (num_positives > 0).sum()
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def _pairs(labels: Tensor, num_own: int, num_views: int, num_background: int) -> tuple[Tensor, Tensor]:
    """The positives of each anchor, and what stands in its denominator, both boolean `[A,M]`."""
    num_images = len(labels)
    if num_own == num_images:
        positive = positive_pairs(labels, num_views, num_background=num_background)
    else:  # the rows of the first `num_own` images of all of them
        classes = labels.repeat_interleave(num_views)
        same = classes[: num_own * num_views, None] == classes
        positive = F.pad(same, (0, num_background * num_views))
    others = num_images - num_own + num_background  # contrasted with, as background is, though they may be positives
    contrasted = contrasted_pairs(num_own, num_views, num_background=others, device=labels.device)
    return positive & contrasted, contrasted


def _similarity(features: Tensor, num_anchors: int, temperature: float) -> Tensor:
    """The similarities `e_i . e_a / tau` [A,M], in float32 or better: bfloat16 rounds them to halves at tau = 0.01."""
    with full_precision(features):
        rows = features.to(torch.promote_types(features.dtype, torch.float32))
        return rows[:num_anchors].flatten(0, 1) @ rows.flatten(0, 1).T / temperature


def _classes(labels: Integers | None, num_images: int, device: torch.device) -> Tensor:
    """One class per image, `[n]`."""
    if labels is None:
        return torch.arange(num_images, device=device)
    classes = integers("labels", labels, device)
    if classes.shape != (num_images,):
        raise ArgumentError(
            f"`labels` must be one per image that is no background, {num_images}; got {list(classes.shape)}."
        )
    return classes


def _check_anchors(num_anchors: int | None, num_images: int) -> int:
    """How many images are anchors, m."""
    if num_anchors is None:
        return num_images
    if not 1 <= num_anchors <= num_images:
        raise ArgumentError(f"`num_anchors` must be from 1 to the number of images, {num_images}; got {num_anchors}.")
    return num_anchors


def _check_temperatures(temperature: float, base_temperature: float | None) -> None:
    for name, value in {"temperature": temperature, "base_temperature": base_temperature}.items():
        if value is not None and not 0 < value < math.inf:
            raise ArgumentError(f"`{name}` must be positive, got {value}.")


def _check_features(features: Tensor, num_background: int) -> int:
    """How many images are no background, n."""
    if not isinstance(features, Tensor):
        raise ArgumentError(f"`features` must be a tensor [n,V,D], got {type(features).__name__}: torch.stack a list.")
    if features.ndim != 3 or features.numel() == 0 or not features.is_floating_point():
        raise ArgumentError(
            f"`features` must be floating point [n,V,D], none of them 0, got {features.dtype} {list(features.shape)}."
        )
    num_images = len(features) - num_background
    if not 0 <= num_background < len(features):
        raise ArgumentError(
            f"`num_background` must leave an image of the {len(features)} as anchor, got {num_background}."
        )
    _check_lengths(features.detach())
    return num_images


def _check_lengths(features: Tensor) -> None:
    length = torch.linalg.vector_norm(features, dim=2, dtype=torch.promote_types(features.dtype, torch.float32))
    # Negated, so that NaN is wrong too. Waits for the device: a row of another length changes the loss silently.
    wrong = ~((length - 1).abs() <= LENGTH_TOLERANCE)
    if wrong.any():
        image, view = wrong.nonzero()[0].tolist()
        if length[image, view].isnan():
            raise ArgumentError(
                f"`features` must be finite, those of image {image}, view {view} are NaN: has the encoder diverged, or "
                "was a row of zeros divided by its length? torch.nn.functional.normalize leaves it zero."
            )
        raise ArgumentError(
            f"`features` must be of unit length, that of image {image}, view {view} is {length[image, view]:.3g}: "
            "normalise them with torch.nn.functional.normalize(features, dim=-1)."
        )
